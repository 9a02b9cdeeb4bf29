//! Waiting for what another process does.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, interval};

/// How often a condition is looked at that nobody signals.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long anything may take that must happen at all: far more than it needs, so that only a fault is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns what `condition` finds, as soon as it does; an error that says `what` did not happen if it never does.
pub async fn until<T, F>(what: impl fmt::Display, mut condition: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let began = Instant::now();
    let mut looks = interval(LOOK_EVERY);
    while began.elapsed() < PATIENCE {
        looks.tick().await;
        if let Some(found) = condition().await? {
            return Ok(found);
        }
    }
    bail!("it did not happen within {PATIENCE:?} that {what}")
}
