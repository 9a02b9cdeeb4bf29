//! A channel that takes jobs, for as long as it lives.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{FutureExt, try_join_all};
use futures::{StreamExt, stream};
use lapin::Channel;
use lapin::message::Delivery as Received;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::{answer, failed};
use super::link::Link;
use super::message;
use super::queues::{self, Source, Target};
use queue::driver::{Delivery, DeliveryTag, RequeueOnDrop, Settlement};
use queue::{Error, ErrorKind, PoolName, Result};

/// What waited may have gone to another consumer meanwhile, so what does not come within this time is not waited for.
const STRAGGLERS: Duration = Duration::from_millis(50);

/// How long to trust that the first job of an empty queue will be delivered.
const TRUST: Duration = Duration::from_secs(30);

/// What a consumer is answered.
pub(super) type Reply = Result<Vec<Delivery>>;

/// One life of a consumer's channel. Its deliveries are worth nothing once it is over: they come again.
pub(super) struct Session {
    /// Which one of its consumer.
    number: i64,
    pool: PoolName,
    /// In the order of their classes.
    sources: Vec<Source>,
    channel: Channel,
    pub(super) opened_at: Instant,
    is_ended: AtomicBool,
    unsettled: Mutex<Unsettled>,
}

/// The server's names for what it thinks this channel holds.
#[derive(Default)]
struct Unsettled {
    tags: BTreeSet<u64>,
    last: u64,
}

impl Unsettled {
    /// Tags are numbered in the order of delivery, but seen in another, since several queues are read at once. Those that
    /// must be on their way are held too: to settle "all up to here" must not settle what nobody has seen.
    fn came(&mut self, tag: u64) {
        self.tags.extend(self.last + 1..=tag);
        self.last = self.last.max(tag);
    }
}

impl Session {
    pub(super) async fn open(link: &Link, pool: &PoolName, sources: &[Source], number: i64) -> Result<Self> {
        let (open, channel) = link.channel().await?;
        // Each time, since their having been deleted may be why the last channel went.
        open.ensure(&channel, &Target::Pool(pool.clone())).await?;
        for source in sources.iter().filter(|source| source.is_named) {
            open.ensure(&channel, &Target::Named(source.queue.clone())).await?;
        }
        let (opened_at, is_ended, sources) = (Instant::now(), AtomicBool::new(false), sources.to_vec());
        Ok(Self { number, pool: pool.clone(), sources, channel, opened_at, is_ended, unsettled: Mutex::default() })
    }

    pub(super) fn number(&self) -> i64 {
        self.number
    }

    pub(super) fn is_open(&self) -> bool {
        !self.is_ended.load(Ordering::Relaxed) && self.channel.status().connected()
    }

    /// Whether every delivery of its has been settled.
    pub(super) fn holds_nothing(&self) -> bool {
        self.unsettled().tags.is_empty()
    }

    /// From here on nothing is said on its channel but that it closes; `false` if it is closed already.
    pub(super) fn end(&self) -> bool {
        !self.is_ended.swap(true, Ordering::Relaxed) && self.channel.status().connected()
    }

    /// Waits until something is there and takes at most `max`, the most urgent class first. Takes nothing when nothing
    /// came for as long as waiting can be trusted, or when nobody wants the `reply` any more.
    ///
    /// What waits must go on waiting in the broker, so consumers are opened for exactly what is wanted, and closed.
    pub(super) async fn take(
        &self,
        max: usize,
        holder: &Arc<dyn RequeueOnDrop>,
        reply: &mut oneshot::Sender<Reply>,
    ) -> Reply {
        loop {
            let waiting = try_join_all(self.sources.iter().map(|source| self.waiting(&source.queue))).await?;
            // More room than that a consumer cannot be given.
            let mut left = max.min(u16::MAX.into());
            let mut wanted = Vec::new();
            for (source, waiting) in self.sources.iter().zip(waiting) {
                let some = usize::try_from(waiting).unwrap_or(usize::MAX).min(left);
                left -= some;
                wanted.push((source, some));
            }
            wanted.retain(|(_, some)| *some > 0);
            let is_empty = wanted.is_empty();
            let mut taken = if is_empty {
                // The first of any queue is the signal.
                wanted.extend(self.sources.iter().map(|source| (source, 1)));
                self.consume(&wanted, 1, TRUST, reply).await?
            } else {
                self.consume(&wanted, wanted.iter().map(|(_, some)| some).sum(), STRAGGLERS, reply).await?
            };
            taken.sort_by_key(|(source, received)| (source.class, received.delivery_tag));
            let taken: Vec<_> =
                taken.into_iter().map(|(source, received)| self.delivery(source, received, holder)).collect();
            let taken = self.at_most(max, taken);
            if !taken.is_empty() || is_empty || reply.is_closed() {
                return Ok(taken);
            }
        }
    }

    /// More than one may have come of the classes that were waited for; those too many go back.
    fn at_most(&self, max: usize, mut taken: Vec<Delivery>) -> Vec<Delivery> {
        for delivery in taken.drain(max.min(taken.len())..).collect::<Vec<_>>() {
            self.give_back(delivery.into_tag());
        }
        taken
    }

    async fn waiting(&self, name: &ShortString) -> Result<u64> {
        let gone = || Error::new(ErrorKind::Unavailable, format_args!("the queue {name} has been deleted"));
        queues::waiting(&self.channel, name.clone()).await?.ok_or_else(gone)
    }

    /// Opens a consumer for each of `wanted`, with room for as many, and closes them when `enough` came, when nothing more
    /// came for as long as `patience`, or when nobody wants the `reply` any more.
    async fn consume<'a>(
        &self,
        wanted: &[(&'a Source, usize)],
        enough: usize,
        patience: Duration,
        reply: &mut oneshot::Sender<Reply>,
    ) -> Result<Vec<(&'a Source, Received)>> {
        let opened = wanted.iter().map(async |(source, some)| {
            let room = u16::try_from(*some).unwrap_or(u16::MAX);
            let options = BasicConsumeOptions::default();
            // Said in one breath: the room is that of the consumer opened next.
            let room = self.channel.basic_qos(room, BasicQosOptions::default());
            let consumer = self.channel.basic_consume(source.queue.clone(), "".into(), options, FieldTable::default());
            let ((), consumer) = futures::future::try_join(room, consumer).await?;
            Ok::<_, lapin::Error>((*source, consumer))
        });
        let consumers = answer("take jobs", try_join_all(opened)).await?;
        let tags: Vec<_> = consumers.iter().map(|(_, consumer)| consumer.tag()).collect();
        let deliveries = consumers.into_iter().map(|(source, consumer)| {
            let deliveries = consumer.map(move |received| Some((source, received)));
            deliveries.chain(stream::iter([None]))
        });
        let mut deliveries = stream::select_all(deliveries.map(|stream| stream.boxed()));

        let mut taken = Vec::with_capacity(enough);
        while taken.len() < enough {
            tokio::select! {
                biased;
                next = deliveries.next() => match next.flatten() {
                    Some((source, received)) => taken.push((source, self.came(received)?)),
                    None => return Err(Error::new(ErrorKind::Unavailable, "the broker stopped delivering")),
                },
                () = tokio::time::sleep(patience) => break,
                () = reply.closed() => break,
            }
        }
        let closed = tags.into_iter().map(|tag| self.channel.basic_cancel(tag, BasicCancelOptions::default()));
        answer("stop taking jobs", try_join_all(closed)).await?;
        // What came before the server closed them is theirs.
        while let Some(next) = deliveries.next().await {
            if let Some((source, received)) = next {
                taken.push((source, self.came(received)?));
            }
        }
        Ok(taken)
    }

    fn came(&self, received: lapin::Result<Received>) -> Result<Received> {
        let received = received.map_err(|error| failed("take jobs", error))?;
        self.unsettled().came(received.delivery_tag);
        Ok(received)
    }

    fn delivery(&self, source: &Source, received: Received, holder: &Arc<dyn RequeueOnDrop>) -> Delivery {
        let tag =
            DeliveryTag { message: self.number, delivery: i64::try_from(received.delivery_tag).unwrap_or(i64::MAX) };
        let body = Bytes::from(received.data);
        let (job, unreadable) =
            message::read(source.queue.as_str(), &self.pool, source.class, &received.properties, body);
        let holder = Arc::clone(holder);
        match unreadable {
            None => Delivery::new(job, received.redelivered, tag, holder),
            Some(reason) => Delivery::unreadable(job, &reason, received.redelivered, tag, holder),
        }
    }

    /// Settles what this channel still holds, and waits until the server has heard it.
    pub(super) async fn settle(&self, settled: &[(DeliveryTag, Settlement)]) -> Result<()> {
        let mut done = Vec::new();
        let mut is_stale = true;
        for (tag, how) in settled {
            match how {
                Settlement::Requeue => is_stale &= !self.give_back(*tag),
                Settlement::Ack => done.extend(self.held(*tag)),
            }
        }
        is_stale &= done.is_empty();
        if is_stale {
            return Ok(());
        }
        done.sort_unstable();
        // All up to the first that is still held can be said at once, which costs the queue one command.
        let held = self.unsettled().tags.first().copied();
        let together = done.partition_point(|tag| held.is_none_or(|held| *tag < held));
        if let Some(last) = together.checked_sub(1) {
            self.say(self.channel.basic_ack(done[last], BasicAckOptions { multiple: true }));
        }
        for tag in &done[together..] {
            self.say(self.channel.basic_ack(*tag, BasicAckOptions { multiple: false }));
        }
        // None of them is answered. What is answered on the same channel has been heard after them.
        answer("settle jobs", self.channel.basic_qos(1, BasicQosOptions::default())).await
    }

    /// Gives a delivery back; `false` if this channel does not hold it.
    pub(super) fn give_back(&self, tag: DeliveryTag) -> bool {
        let held = self.held(tag);
        if let Some(tag) = held {
            self.say(self.channel.basic_nack(tag, BasicNackOptions { requeue: true, ..BasicNackOptions::default() }));
        }
        held.is_some()
    }

    /// Hands a message without an answer to the driver, which sends in the order in which it was asked.
    fn say(&self, said: impl Future<Output = lapin::Result<()>>) {
        if let Some(Err(error)) = said.now_or_never() {
            tracing::debug!(%error, "cannot settle a job: the channel is closed and the job comes again");
        }
    }

    /// The server's name for a delivery, if this channel still holds it; from here on it does not.
    fn held(&self, tag: DeliveryTag) -> Option<u64> {
        let delivery = u64::try_from(tag.delivery).ok()?;
        (tag.message == self.number && self.unsettled().tags.remove(&delivery)).then_some(delivery)
    }

    /// Gives everything back.
    pub(super) async fn close(&self) -> Result<()> {
        answer("close a channel", self.channel.close(lapin::protocol::constants::REPLY_SUCCESS, "done".into())).await
    }

    fn unsettled(&self) -> std::sync::MutexGuard<'_, Unsettled> {
        // Every change under it is a single call, so a panic cannot leave it half-changed.
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
