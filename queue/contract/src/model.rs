//! Random actions on a backend, crashes included, against a small pure model of it.

mod action;
mod run;
mod world;

use proptest::prelude::*;
use proptest::test_runner::Config;

pub use self::action::Action;
use self::run::Run;
use super::Fixture;

/// How many cases are tried, and how a counterexample is made small.
pub fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() }
}

/// Any actions.
pub fn actions() -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(Action::any(), 1..80)
}

/// Acts, comparing with the model after each step; then every job must end.
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
