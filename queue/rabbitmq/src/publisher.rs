//! Puts messages into queues.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::sync::Semaphore;

use super::error::{ANSWER_TIMEOUT, answer, failed, unanswered};
use super::link::{Link, Open};
use super::message::Message;
use super::queues::Target;
use queue::{Error, ErrorKind, Result};

/// How many messages of one call may wait for their confirmation.
const WINDOW: usize = 256;

/// How many calls publish at a time; the others wait for their turn.
const LANES: usize = 32;

/// How long to wait before what a queue did not take is sent again, and how often.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::from_millis(1000)];

/// How long a server that has just said that it takes no more may still confirm what it took before.
const LAST_CONFIRMATIONS: Duration = Duration::from_secs(1);

pub(super) struct Publisher {
    link: Arc<Link>,
    /// Each call has a channel to itself: the server names neither the message that made it close a channel nor, in an
    /// order to rely on, the one that it returned, so no other call may be on it.
    idle: Mutex<Vec<Lane>>,
    lanes: Semaphore,
}

/// The messages that are in no queue.
#[derive(Default)]
struct Unheard {
    /// There was no queue.
    homeless: HashSet<(ShortString, ShortString)>,
    /// The queue took them not: it is at a limit that somebody set, or only just being made by somebody else.
    refused: HashSet<(ShortString, ShortString)>,
}

struct Lane {
    open: Arc<Open>,
    channel: Channel,
}

impl Publisher {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), idle: Mutex::default(), lanes: Semaphore::new(LANES) }
    }

    /// Returns when the server has confirmed every message. They go to queues of `targets`, which are declared where they
    /// are not there.
    pub(super) async fn publish(&self, messages: &[Message], targets: &HashSet<Target>) -> Result<()> {
        let Ok(Ok(_turn)) = tokio::time::timeout(ANSWER_TIMEOUT, self.lanes.acquire()).await else {
            return Err(unanswered("publish (others are before it)"));
        };
        let mut lane = self.lane().await?;
        lane.publish(&self.link, messages, targets).await?;
        // Only a lane with nothing outstanding may be used again; any other closes as it is dropped.
        self.idle().push(lane);
        Ok(())
    }

    pub(super) fn prefix(&self) -> &str {
        self.link.prefix()
    }

    async fn lane(&self) -> Result<Lane> {
        let open = self.link.open().await?;
        // Nothing that is said now would be heard, not even the wish for a channel.
        if open.is_blocked() {
            return Err(full());
        }
        while let Some(lane) = self.idle().pop() {
            if lane.channel.status().connected() {
                return Ok(lane);
            }
        }
        Lane::open(&self.link).await
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Lane>> {
        // Every change under it is a single call, so a panic cannot leave it half-changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    async fn open(link: &Link) -> Result<Self> {
        let (open, channel) = link.channel().await?;
        answer("ask for confirmations", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self { open, channel })
    }

    async fn publish(&mut self, link: &Link, messages: &[Message], targets: &HashSet<Target>) -> Result<()> {
        for target in targets {
            self.open.declare(&self.channel, target).await?;
        }
        let mut left: Vec<_> = messages.iter().collect();
        for pause in PAUSES {
            let Unheard { homeless, refused } = self.send(&left).await?;
            if !homeless.is_empty() {
                tracing::warn!(messages = homeless.len(), "queues have been deleted; declaring them again");
                // On a new channel: the server may confirm to the old one what it sends to the queues that are gone.
                *self = Self::open(link).await?;
                for target in targets {
                    self.open.forget(target);
                    self.open.declare(&self.channel, target).await?;
                }
            }
            left.retain(|message| refused.contains(&name_of(message)) || homeless.contains(&name_of(message)));
            if left.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        Err(Error::new(ErrorKind::Full, "cannot publish: the queues take no more"))
    }

    /// Sends messages in their order and waits until the server has said of each what became of it.
    async fn send(&self, messages: &[&Message]) -> Result<Unheard> {
        let sent: Vec<_> = messages.iter().map(|message| self.send_one(message).boxed()).collect();
        let mut confirmations = stream::iter(sent).buffered(WINDOW);
        let mut unheard = Unheard::default();
        let mut sent = messages.iter();
        while let Some(confirmation) = self.next(&mut confirmations).await? {
            let message = sent.next();
            let returned = match confirmation.map_err(|error| failed("publish", error))? {
                Confirmation::Ack(returned) => returned,
                Confirmation::Nack(returned) => {
                    unheard.refused.extend(message.map(|message| name_of(message)));
                    returned
                }
                Confirmation::NotRequested => {
                    return Err(Error::new(ErrorKind::Unavailable, "cannot publish: the broker does not confirm"));
                }
            };
            // It need not be the one that this confirms.
            unheard.homeless.extend(returned.map(|returned| {
                let id = returned.properties.message_id().clone().unwrap_or_default();
                (returned.routing_key.clone(), id)
            }));
        }
        Ok(unheard)
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
            () = tokio::time::sleep(ANSWER_TIMEOUT) => Err(unanswered("publish")),
        }
    }
}

/// What a message is known by: its queue and its id.
fn name_of(message: &Message) -> (ShortString, ShortString) {
    (message.queue.clone(), message.properties.message_id().clone().unwrap_or_default())
}

fn full() -> Error {
    Error::new(ErrorKind::Full, "cannot publish: the broker is short of memory or disk and takes no more for now")
}
