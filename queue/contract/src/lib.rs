//! What every backend promises, as tests: one function per promise, its name the promise.
//!
//! A backend says how it is opened, killed and let wait ([`Fixture`]) and then calls the three macros, each of which
//! makes one test per promise:
//!
//! ```text
//! broker_contract!(RabbitFixture::start().await);
//! ledger_contract!(RabbitFixture::start().await);
//! roster_contract!(RabbitFixture::start().await);
//! ```
#![allow(missing_docs, reason = "the name of a promise says it all")]
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
    /// The backend, opened as one more process would open it.
    async fn open(&self) -> Backend;

    /// Makes a process vanish as `kill -9` would: it gives nothing back, and nothing it does from here on has an effect.
    async fn kill(&self, process: Backend);

    /// Makes the broker take every consumer for dead, though they live: what they hold comes again.
    async fn give_up_on_consumers(&self);

    /// The time the backend goes by.
    fn now(&self) -> Timestamp;

    /// Lets that time go on by at least `by`.
    async fn advance(&self, by: Duration);

    /// Whether the broker can tell when the oldest waiting delivery was published.
    fn knows_the_oldest(&self) -> bool {
        true
    }

    /// Whether a delivery may go to any consumer of its pool; else it is for the one that has its partition, and nobody
    /// can say beforehand which that is.
    fn any_consumer_gets_any_delivery(&self) -> bool {
        true
    }
}

/// How long a claim lasts in these tests.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long after a submission nobody is thought to publish it any more.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after its last sign of life a consumer is surely taken for dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);

/// A promise that is not kept by then is broken. Nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pool that these tests use unless they need two.
pub fn pool() -> PoolName {
    "resnet50".parse().unwrap()
}

/// A small job of the usual kind.
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

/// `count` of them, named `job-0` and so on.
pub fn jobs(fixture: &dyn Fixture, count: usize) -> Vec<Job> {
    (0..count).map(|number| job(fixture, &format!("job-{number}"))).collect()
}

/// What `future` gives; a panic instead of a test that hangs.
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
            include_str!("ledger/suspecting.rs"),
            include_str!("ledger/ending.rs"),
            include_str!("ledger/watching.rs"),
            include_str!("ledger/arriving.rs"),
            include_str!("ledger/counting.rs"),
            include_str!("ledger/dead.rs"),
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
