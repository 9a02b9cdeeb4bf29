//! The promises of every backend as tests: one function per promise, named after it.
//!
//! A driver implements [`Fixture`], which opens, kills and delays its backend. Then it calls the three macros, each of
//! which makes one test per promise:
//!
//! ```text
//! broker_contract!(RabbitFixture::start().await);
//! ledger_contract!(RabbitFixture::start().await);
//! roster_contract!(RabbitFixture::start().await);
//! ```
#![allow(missing_docs, reason = "the name of a promise is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "these are tests, even where they are compiled as a library"
)]

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use queue::{Backend, Body, Class, Input, Job, PoolName};

pub mod broker;
pub mod faulty;
pub mod ledger;
pub mod model;
pub mod roster;

/// One set of data of a backend, empty at first, and the processes that use it.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The backend, opened as a further process would open it. Its ledger keeps dead jobs for [`queue::DEAD_RETENTION`].
    async fn open(&self) -> Backend;

    /// Ends a process as `kill -9` does. The process requeues nothing, and its later calls have no effect.
    async fn kill(&self, process: Backend);

    /// Makes the broker consider every live consumer dead, so that it delivers their deliveries again.
    async fn give_up_on_consumers(&self);

    /// The time that the backend uses.
    fn now(&self) -> Timestamp;

    /// Moves that time ahead by at least `by`, while processes run and look for due jobs.
    async fn advance(&self, by: Duration);

    /// Moves that time ahead by at least `by`, while no process can reach the ledger.
    async fn advance_in_outage(&self, by: Duration) {
        self.advance(by).await;
    }

    /// Sets that time back by `by`. Processes run, and have not looked for due jobs since.
    async fn set_back(&self, by: Duration);

    /// Whether the broker knows when the oldest waiting delivery was published.
    fn knows_the_oldest(&self) -> bool {
        true
    }

    /// Whether any consumer of a pool may receive a delivery. Otherwise the consumer of its partition receives it, and
    /// a test cannot predict which consumer this is.
    fn any_consumer_gets_any_delivery(&self) -> bool {
        true
    }
}

/// The lease of a claim in these tests.
pub const LEASE: Duration = Duration::from_secs(10);

/// The time after a submission at which upkeep publishes the job if its publication is still unconfirmed.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// The time after its last heartbeat at which every broker considers a consumer dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);

/// The time limit of a promise: after it, the promise is broken. A test that passes never waits for the whole limit.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pool of the tests that need only one pool.
pub fn pool() -> PoolName {
    "resnet50".parse().unwrap()
}

/// A small job.
pub fn job(fixture: &dyn Fixture, id: &str) -> Job {
    Job {
        id: id.parse().unwrap(),
        pool: pool(),
        class: Class::Standard,
        input: Input { media_type: "text/plain".to_owned(), body: Body::Inline(Bytes::from(format!("input of {id}"))) },
        created_at: fixture.now(),
        deadline_at: None,
        max_attempts: 3,
        retention: Duration::from_secs(3600),
        trace_parent: None,
        origin: None,
    }
}

/// `count` small jobs, named `job-0` and so on.
pub fn jobs(fixture: &dyn Fixture, count: usize) -> Vec<Job> {
    (0..count).map(|number| job(fixture, &format!("job-{number}"))).collect()
}

/// The output of `future`. If the future takes too long, this panics, so that no test hangs.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have happened long ago")
}

/// Makes one test of each promise in a module of this one.
#[doc(hidden)]
#[macro_export]
macro_rules! promises {
    ($fixture:expr, $module:ident, $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let fixture = $fixture;
                $crate::$module::$promise(&fixture).await;
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_promise_is_a_test_of_every_backend() {
        let broker = include_str!("broker.rs");
        let roster = include_str!("roster.rs");
        let ledger = [
            include_str!("ledger.rs"),
            include_str!("ledger/submitting.rs"),
            include_str!("ledger/publishing.rs"),
            include_str!("ledger/claiming.rs"),
            include_str!("ledger/clock.rs"),
            include_str!("ledger/suspecting.rs"),
            include_str!("ledger/ending.rs"),
            include_str!("ledger/watching.rs"),
            include_str!("ledger/arriving.rs"),
            include_str!("ledger/counting.rs"),
            include_str!("ledger/retention.rs"),
            include_str!("ledger/dead.rs"),
            include_str!("ledger/sweeping.rs"),
        ];
        for source in [broker, roster, &ledger.concat()] {
            let lines = source.lines();
            let defined = lines.filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next());
            let list = source.split("$crate::promises! {").nth(1).and_then(|rest| rest.split('}').next()).unwrap();
            let listed = list.lines().skip(3).map(str::trim).filter(|line| !line.is_empty());
            assert_eq!(defined.collect::<Vec<_>>(), listed.collect::<Vec<_>>());
        }
    }
}
