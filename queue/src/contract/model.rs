//! Random actions on a backend, crashes included, against a small pure model of it.

mod action;
#[cfg(feature = "redis")]
mod ledger_in_redis;
mod run;
mod world;

use proptest::prelude::*;
use proptest::test_runner::Config;

use self::action::Action;
use self::run::Run;
use super::{EmbeddedFixture, Fixture};

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(Action::any(), 1..80)
}

/// Acts, comparing with the model after each step; then every job must end.
fn act(fixture: impl Fixture + 'static, actions: Vec<Action>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut run = Run::start(Box::new(fixture)).await;
        for action in actions {
            run.act(action).await;
            run.check().await;
        }
        run.drain().await;
    });
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn whatever_happens_every_job_is_accounted_for(actions in actions()) {
        act(EmbeddedFixture::start(), actions);
    }
}

#[cfg(feature = "redis")]
proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn whatever_happens_redis_accounts_for_every_job(actions in actions()) {
        act(ledger_in_redis::LedgerInRedis::start(), actions);
    }
}
