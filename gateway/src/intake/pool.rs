//! A pool, as the intake needs it.

use std::time::Duration;

use model::InputCheck;

/// The part of a pool's configuration that is needed to accept jobs for it.
#[derive(Clone)]
pub struct Pool {
    /// The check of inputs against the model. It runs in every request, so it must not block.
    pub input_check: InputCheck,
    /// How many times workers may start a job, at least 1.
    pub max_attempts: u32,
    /// How long the record and result of a job are kept after it has ended.
    pub retention: Duration,
    /// How long after its submission a job without a deadline of its own may start. `None`: at any time.
    pub deadline: Option<Duration>,
}
