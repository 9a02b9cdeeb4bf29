//! Random actions on a backend, including crashes, compared with a small pure model of it.

mod action;
mod run;
mod world;

use proptest::prelude::*;
use proptest::test_runner::Config;

use self::run::Run;
use super::Fixture;
pub use action::Action;

/// The number of cases, and the most steps in which a counterexample is made smaller.
pub fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() }
}

/// Random sequences of actions.
pub fn actions() -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(Action::any(), 1..80)
}

/// Runs the actions and compares with the model after each one; then every job must end.
pub fn act(fixture: impl Fixture + 'static, actions: Vec<Action>) {
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
