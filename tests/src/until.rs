//! Waiting for a change that another process makes.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, interval};

/// The interval between two checks of a condition for which there is no signal.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The time limit for a condition. It is far longer than needed, so only a fault is slow.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Checks `condition` until it finds a value, and returns that. After the time limit the error names `what`.
pub async fn until<T, F>(what: impl fmt::Display, mut condition: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let started = Instant::now();
    let mut checks = interval(CHECK_INTERVAL);
    while started.elapsed() < TIMEOUT {
        checks.tick().await;
        if let Some(found) = condition().await? {
            return Ok(found);
        }
    }
    bail!("this did not happen within {TIMEOUT:?}: {what}")
}
