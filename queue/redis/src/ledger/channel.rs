//! A subscription to a channel that is renewed whenever its connection breaks.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::connection::{Backoff, Redis};
use queue::{Error, ErrorKind, Result};

/// How long a caller waits for an active subscription before its call fails.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// After this time without a message, the process publishes an empty one to probe its subscription. After the same time
/// again the subscription counts as lost: a connection may be broken before either end detects it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// An event of a followed channel.
#[derive(Debug)]
pub(super) enum ChannelEvent<'a> {
    /// The subscription is active: no message is missed from now on.
    Subscribed,
    /// A message: names separated by spaces. A probe has no name.
    Names(&'a str),
    /// The subscription is lost, and why. Messages are missed until the next `Subscribed`.
    Lost(&'a str),
}

/// Whether a subscription is active, or why it is not.
pub(super) struct SubscriptionState(watch::Sender<Result<(), String>>);

impl SubscriptionState {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Err("it has not been tried yet".to_owned())))
    }

    /// Changes the state, and returns whether the subscription was active before.
    pub(super) fn set(&self, state: Result<(), String>) -> bool {
        self.0.send_replace(state).is_ok()
    }

    /// Waits until the subscription is active. It is an error if that takes longer than [`SUBSCRIBE_TIMEOUT`].
    pub(super) async fn wait(&self, channel: &str) -> Result<()> {
        let mut state = self.0.subscribe();
        if timeout(SUBSCRIBE_TIMEOUT, state.wait_for(Result::is_ok)).await.is_ok() {
            return Ok(());
        }
        let reason = state.borrow().clone().err().unwrap_or_default();
        Err(Error::new(ErrorKind::Unavailable, format_args!("cannot subscribe to the channel {channel}: {reason}")))
    }
}

/// Subscribes to `channel` again and again, and passes every event to `notify`. Never returns.
pub(super) async fn follow(redis: Redis, channel: &'static str, notify: impl Fn(ChannelEvent<'_>)) {
    let name = redis.key(channel);
    let mut command = redis::cmd("PUBLISH");
    command.arg(&name).arg("");
    let probe = || redis.run::<()>("probe the subscription", &command);
    let mut backoff = Backoff::default();
    loop {
        let reason = match redis.subscribe(&name).await {
            Ok(messages) => {
                backoff = Backoff::default();
                notify(ChannelEvent::Subscribed);
                receive(messages, &notify, IDLE_TIMEOUT, probe).await
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(channel, error = reason, "a subscription is lost; subscribing again");
        notify(ChannelEvent::Lost(&reason));
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Receives messages until the subscription is lost, and returns the reason.
async fn receive<F: Future<Output = Result<()>>>(
    mut messages: impl Stream<Item = Vec<u8>> + Unpin,
    notify: impl Fn(ChannelEvent<'_>),
    idle: Duration,
    probe: impl Fn() -> F,
) -> String {
    let mut is_probed = false;
    loop {
        match timeout(idle, messages.next()).await {
            Ok(Some(names)) => {
                is_probed = false;
                notify(ChannelEvent::Names(&String::from_utf8_lossy(&names)));
            }
            Ok(None) => return "the connection is lost".to_owned(),
            Err(_) if is_probed => return format!("no message for {idle:?}, not even the probe of this process"),
            Err(_) => {
                is_probed = true;
                if let Err(error) = probe().await {
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
    async fn a_subscription_without_messages_is_probed_once_and_then_lost() {
        let probes = AtomicUsize::new(0);
        let probe = || {
            probes.fetch_add(1, Ordering::SeqCst);
            future::ready(Ok(()))
        };
        soon(receive(stream::pending(), |_| {}, A_MOMENT, probe)).await;
        assert_eq!(probes.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_subscription_that_receives_its_own_probes_stays_active() {
        let (published, received) = futures::channel::mpsc::unbounded();
        let probes = AtomicUsize::new(0);
        let probe = || {
            match probes.fetch_add(1, Ordering::SeqCst) {
                0..10 => published.unbounded_send(Vec::new()).unwrap(),
                _ => published.close_channel(),
            }
            future::ready(Ok(()))
        };
        assert_eq!(soon(receive(received, |_| {}, A_MOMENT, probe)).await, "the connection is lost");
        assert_eq!(probes.load(Ordering::SeqCst), 11);
    }
}
