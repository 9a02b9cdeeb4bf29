//! Random actions on the embedded backend, crashes included, against a small pure model of it.

mod action;
mod run;
mod world;

use proptest::prelude::*;
use proptest::test_runner::Config;

use self::action::Action;
use self::run::Run;

fn config() -> Config {
    Config { cases: 256, failure_persistence: None, max_shrink_iters: 400, ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_every_job_is_accounted_for(actions in prop::collection::vec(Action::any(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::start().await;
            for action in actions {
                run.act(action).await;
                run.check().await;
            }
            run.drain().await;
        });
    }
}
