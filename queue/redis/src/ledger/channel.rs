//! A channel that is heard for as long as somebody wants to, over every loss of the connection.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::connection::{Redis, backoff};
use queue::{Error, ErrorKind, Result};

/// How long who wants to hear waits for the subscription to stand before it fails.
const STANDING_TIMEOUT: Duration = Duration::from_secs(10);

/// After so long without a message the subscription is tried out with one of our own; after as long again it is given
/// up. A connection may be dead without either end having been told.
const QUIET: Duration = Duration::from_secs(10);

/// What is heard.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// From here on nothing is missed.
    Standing,
    /// Names separated by spaces; none at all where a process tries out its subscription.
    Names(&'a str),
    /// Why nothing is heard until it stands again.
    Lost(&'a str),
}

/// Whether a subscription stands; if not, why.
pub(super) struct Standing(watch::Sender<Result<(), String>>);

impl Standing {
    pub(super) fn not_yet() -> Self {
        Self(watch::Sender::new(Err("it has not been tried yet".to_owned())))
    }

    /// Whether it stood before.
    pub(super) fn set(&self, standing: Result<(), String>) -> bool {
        self.0.send_replace(standing).is_ok()
    }

    /// Returns when it stands; an error if it does not in time.
    pub(super) async fn wait(&self, channel: &str) -> Result<()> {
        let mut standing = self.0.subscribe();
        if timeout(STANDING_TIMEOUT, standing.wait_for(Result::is_ok)).await.is_ok() {
            return Ok(());
        }
        let why = standing.borrow().clone().err().unwrap_or_default();
        Err(Error::new(ErrorKind::Unavailable, format_args!("cannot subscribe to the channel {channel}: {why}")))
    }
}

/// Hears `channel`, and subscribes to it again when the connection is lost.
pub(super) async fn follow(redis: Redis, channel: &'static str, tell: impl Fn(Heard<'_>)) {
    let name = redis.key(channel);
    let mut command = redis::cmd("PUBLISH");
    command.arg(&name).arg("");
    let try_out = || redis.run::<()>("try out the subscription", &command);
    let mut failures = 0;
    loop {
        let why = match redis.subscribe(&name).await {
            Ok(messages) => {
                failures = 0;
                tell(Heard::Standing);
                hear(messages, &tell, QUIET, try_out).await
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(channel, error = why, "a subscription is lost; subscribing again");
        tell(Heard::Lost(&why));
        failures += 1;
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// Hears until the subscription is lost; why it is.
async fn hear<F: Future<Output = Result<()>>>(
    mut messages: impl Stream<Item = Vec<u8>> + Unpin,
    tell: impl Fn(Heard<'_>),
    quiet: Duration,
    try_out: impl Fn() -> F,
) -> String {
    let mut is_tried = false;
    loop {
        match timeout(quiet, messages.next()).await {
            Ok(Some(names)) => {
                is_tried = false;
                tell(Heard::Names(&String::from_utf8_lossy(&names)));
            }
            Ok(None) => return "the connection is lost".to_owned(),
            Err(_) if is_tried => return format!("nothing was heard for {quiet:?}, not even this process itself"),
            Err(_) => {
                is_tried = true;
                if let Err(error) = try_out().await {
                    return error.to_string();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{future, stream};

    use super::*;
    use queue_contract::soon;

    const A_MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_silent_subscription_is_tried_out_once_and_then_given_up() {
        let tries = AtomicUsize::new(0);
        let try_out = || {
            tries.fetch_add(1, Ordering::SeqCst);
            future::ready(Ok(()))
        };
        soon(hear(stream::pending(), |_| {}, A_MOMENT, try_out)).await;
        assert_eq!(tries.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_subscription_that_hears_itself_is_kept() {
        let (published, heard) = futures::channel::mpsc::unbounded();
        let tries = AtomicUsize::new(0);
        let try_out = || {
            match tries.fetch_add(1, Ordering::SeqCst) {
                0..10 => published.unbounded_send(Vec::new()).unwrap(),
                _ => published.close_channel(),
            }
            future::ready(Ok(()))
        };
        assert_eq!(soon(hear(heard, |_| {}, A_MOMENT, try_out)).await, "the connection is lost");
        assert_eq!(tries.load(Ordering::SeqCst), 11);
    }
}
