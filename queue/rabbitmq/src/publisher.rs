//! Publishes messages to queues.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::error::{REPLY_TIMEOUT, await_reply, failed, timed_out};
use super::link::{Link, OpenConnection};
use super::message::Message;
use super::queues::Target;
use queue::{Error, ErrorKind, Result};

/// The number of messages of one call that may wait for their confirmation.
const WINDOW: usize = 256;

/// The number of calls that publish at the same time. Further calls wait.
const MAX_CHANNELS: usize = 32;

/// The pauses before rejected messages are sent again. After the last one the call fails.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::from_millis(1000)];

/// The time in which a server that has just blocked the connection may still confirm earlier messages.
const LAST_CONFIRMATIONS: Duration = Duration::from_secs(1);

pub(super) struct Publisher {
    link: Arc<Link>,
    /// Open channels that are not in use. A channel serves one call at a time. The reason: a server that closes a
    /// channel does not name the message that caused this, and it returns messages in no reliable order.
    idle: Mutex<Vec<PublishChannel>>,
    permits: Semaphore,
}

/// The messages that no queue has stored.
#[derive(Default)]
struct UnqueuedMessages {
    /// Their queue does not exist.
    unroutable: HashSet<(ShortString, ShortString)>,
    /// Their queue rejected them, because it has reached a limit of a policy, or because another client is just
    /// declaring it.
    rejected: HashSet<(ShortString, ShortString)>,
}

struct PublishChannel {
    open: Arc<OpenConnection>,
    channel: Channel,
}

impl Publisher {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), idle: Mutex::default(), permits: Semaphore::new(MAX_CHANNELS) }
    }

    /// Publishes the messages to queues of `targets`, and returns when the server has confirmed each of them. Missing
    /// queues are declared.
    pub(super) async fn publish(&self, messages: &[Message], targets: &HashSet<Target>) -> Result<()> {
        let Ok(Ok(_permit)) = tokio::time::timeout(REPLY_TIMEOUT, self.permits.acquire()).await else {
            return Err(timed_out("publish (too many calls publish already)"));
        };
        let mut channel = self.channel().await?;
        channel.publish(&self.link, messages, targets).await?;
        // After an error, confirmations may be outstanding. Then the channel is dropped, which closes it.
        self.idle.lock().push(channel);
        Ok(())
    }

    pub(super) fn prefix(&self) -> &str {
        self.link.prefix()
    }

    async fn channel(&self) -> Result<PublishChannel> {
        let open = self.link.open().await?;
        // The server reads nothing from a blocked connection, not even the request to open a channel.
        if open.is_blocked() {
            return Err(full());
        }
        loop {
            let Some(idle) = self.idle.lock().pop() else { break };
            if idle.channel.status().connected() {
                return Ok(idle);
            }
        }
        PublishChannel::open(&self.link).await
    }
}

impl PublishChannel {
    async fn open(link: &Link) -> Result<Self> {
        let (open, channel) = link.channel().await?;
        await_reply("ask for confirmations", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self { open, channel })
    }

    async fn publish(&mut self, link: &Link, messages: &[Message], targets: &HashSet<Target>) -> Result<()> {
        for target in targets {
            self.open.declare(&self.channel, target).await?;
        }
        let mut left: Vec<_> = messages.iter().collect();
        for pause in PAUSES {
            let UnqueuedMessages { unroutable, rejected } = self.send(&left).await?;
            if !unroutable.is_empty() {
                tracing::warn!(messages = unroutable.len(), "queues have been deleted; declaring them again");
                // This needs a new channel. On the old channel, the server may confirm messages to the deleted queues
                // and lose them.
                *self = Self::open(link).await?;
                for target in targets {
                    self.open.forget(target);
                    self.open.declare(&self.channel, target).await?;
                }
            }
            left.retain(|message| {
                rejected.contains(&message_key(message)) || unroutable.contains(&message_key(message))
            });
            if left.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        Err(Error::new(ErrorKind::Full, "cannot publish: the queues are full"))
    }

    /// Sends messages in order, and waits until the server has confirmed or rejected each of them.
    async fn send(&self, messages: &[&Message]) -> Result<UnqueuedMessages> {
        let sent: Vec<_> = messages.iter().map(|message| self.send_one(message).boxed()).collect();
        let mut confirmations = stream::iter(sent).buffered(WINDOW);
        let mut unqueued = UnqueuedMessages::default();
        let mut sent = messages.iter();
        while let Some(confirmation) = self.next(&mut confirmations).await? {
            let message = sent.next();
            let returned = match confirmation.map_err(|error| failed("publish", error))? {
                Confirmation::Ack(returned) => returned,
                Confirmation::Nack(returned) => {
                    unqueued.rejected.extend(message.map(|message| message_key(message)));
                    returned
                }
                Confirmation::NotRequested => {
                    return Err(Error::new(ErrorKind::Unavailable, "cannot publish: the broker does not confirm"));
                }
            };
            // The returned message may differ from the confirmed one.
            unqueued.unroutable.extend(returned.map(|returned| {
                let id = returned.properties.message_id().clone().unwrap_or_default();
                (returned.routing_key.clone(), id)
            }));
        }
        Ok(unqueued)
    }

    async fn send_one(&self, message: &Message) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let exchange = ShortString::default();
        let (queue, properties) = (message.queue.clone(), message.properties.clone());
        self.channel.basic_publish(exchange, queue, options, &message.body, properties).await?.await
    }

    async fn next<T>(&self, confirmations: &mut (impl futures::Stream<Item = T> + Unpin)) -> Result<Option<T>> {
        let blocked = async {
            self.open.blocked().await;
            tokio::time::sleep(LAST_CONFIRMATIONS).await;
        };
        tokio::select! {
            biased;
            next = confirmations.next() => Ok(next),
            () = blocked => Err(full()),
            () = tokio::time::sleep(REPLY_TIMEOUT) => Err(timed_out("publish")),
        }
    }
}

/// Identifies a message: its queue and its id.
fn message_key(message: &Message) -> (ShortString, ShortString) {
    (message.queue.clone(), message.properties.message_id().clone().unwrap_or_default())
}

fn full() -> Error {
    Error::new(
        ErrorKind::Full,
        "cannot publish: the broker is short of memory or disk, and accepts no messages at present",
    )
}
