//! One channel of a consumer, from its opening to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{FutureExt, try_join_all};
use futures::{StreamExt, stream};
use lapin::Channel;
use lapin::message::Delivery as AmqpDelivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::{await_reply, failed};
use super::link::Link;
use super::message;
use super::queues::{self, Source, Target};
use queue::driver::{Delivery, DeliveryTag, RequeueOnDrop, Settlement};
use queue::{Error, ErrorKind, PoolName, Result};

/// How long to wait for a job that was in the queue. Another consumer may have received it meanwhile.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(50);

/// How long to wait at empty queues. After that the channel may have to be replaced.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The deliveries, or why there are none.
pub(super) type ReceiveResult = Result<Vec<Delivery>>;

/// A consumer's channel. When it ends, the server requeues its deliveries, and settling them has no effect.
pub(super) struct Session {
    /// The number of sessions that the consumer had before.
    number: i64,
    pool: PoolName,
    /// In the order of their classes.
    sources: Vec<Source>,
    channel: Channel,
    pub(super) opened_at: Instant,
    is_ended: AtomicBool,
    unsettled: Mutex<Unsettled>,
}

/// The delivery tags that the server considers unsettled on this channel.
#[derive(Default)]
struct Unsettled {
    tags: BTreeSet<u64>,
    last: u64,
}

impl Unsettled {
    /// Adds a tag, and those below it that have not arrived yet. The server numbers the tags of all queues in the order
    /// of delivery, but they arrive in another order. Settling "all up to this tag" must not settle one of these.
    fn add(&mut self, tag: u64) {
        self.tags.extend(self.last + 1..=tag);
        self.last = self.last.max(tag);
    }
}

impl Session {
    pub(super) async fn open(link: &Link, pool: &PoolName, sources: &[Source], number: i64) -> Result<Self> {
        let (open, channel) = link.channel().await?;
        // This happens for every session, because the last channel may have closed after a queue was deleted.
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

    /// Whether all of its deliveries have been settled.
    pub(super) fn has_no_deliveries(&self) -> bool {
        self.unsettled.lock().tags.is_empty()
    }

    /// From now on the channel may only be closed. `false`: it is closed already.
    pub(super) fn end(&self) -> bool {
        !self.is_ended.swap(true, Ordering::Relaxed) && self.channel.status().connected()
    }

    /// Waits for jobs, and returns at most `max` deliveries, the most urgent class first. Returns none when no job came
    /// within [`IDLE_TIMEOUT`], or when the caller has dropped the receiver of `reply`.
    ///
    /// Jobs must wait in the broker, not in this process. So consumers are opened for the wanted number of jobs, and
    /// then closed again.
    pub(super) async fn receive(
        &self,
        max: usize,
        requeuer: &Arc<dyn RequeueOnDrop>,
        reply: &mut oneshot::Sender<ReceiveResult>,
    ) -> ReceiveResult {
        loop {
            let counts = try_join_all(self.sources.iter().map(|source| self.message_count(&source.queue))).await?;
            // The server limits the prefetch count of a consumer to this number.
            let mut left = max.min(u16::MAX.into());
            let mut wanted = Vec::new();
            for (source, count) in self.sources.iter().zip(counts) {
                let count = usize::try_from(count).unwrap_or(usize::MAX).min(left);
                left -= count;
                wanted.push((source, count));
            }
            wanted.retain(|(_, count)| *count > 0);
            let is_empty = wanted.is_empty();
            let mut received = if is_empty {
                // The first job in any of the queues ends the wait.
                wanted.extend(self.sources.iter().map(|source| (source, 1)));
                self.consume(&wanted, 1, IDLE_TIMEOUT, reply).await?
            } else {
                self.consume(&wanted, wanted.iter().map(|(_, count)| count).sum(), DELIVERY_TIMEOUT, reply).await?
            };
            received.sort_by_key(|(source, message)| (source.class, message.delivery_tag));
            let received = received.into_iter().map(|(source, message)| self.delivery(source, message, requeuer));
            let deliveries = self.requeue_excess(max, received.collect());
            if !deliveries.is_empty() || is_empty || reply.is_closed() {
                return Ok(deliveries);
            }
        }
    }

    /// Requeues the deliveries above `max`. While the session waited at several empty queues, each of them may have
    /// delivered a job.
    fn requeue_excess(&self, max: usize, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
        for delivery in deliveries.drain(max.min(deliveries.len())..).collect::<Vec<_>>() {
            self.requeue(delivery.into_tag());
        }
        deliveries
    }

    async fn message_count(&self, name: &ShortString) -> Result<u64> {
        let gone = || Error::new(ErrorKind::Unavailable, format_args!("the queue {name} has been deleted"));
        queues::message_count(&self.channel, name.clone()).await?.ok_or_else(gone)
    }

    /// Opens an AMQP consumer for each of `wanted`, with that number of jobs as its prefetch count. Closes them when
    /// `enough` jobs came, when no further job came within `timeout`, or when the caller has dropped the receiver of
    /// `reply`.
    async fn consume<'a>(
        &self,
        wanted: &[(&'a Source, usize)],
        enough: usize,
        timeout: Duration,
        reply: &mut oneshot::Sender<ReceiveResult>,
    ) -> Result<Vec<(&'a Source, AmqpDelivery)>> {
        let opened = wanted.iter().map(async |(source, count)| {
            let prefetch = u16::try_from(*count).unwrap_or(u16::MAX);
            let options = BasicConsumeOptions::default();
            // Both are sent together: the prefetch count applies to the next consumer that is opened.
            let prefetch = self.channel.basic_qos(prefetch, BasicQosOptions::default());
            let consumer = self.channel.basic_consume(source.queue.clone(), "".into(), options, FieldTable::default());
            let ((), consumer) = futures::future::try_join(prefetch, consumer).await?;
            Ok::<_, lapin::Error>((*source, consumer))
        });
        let consumers = await_reply("receive jobs", try_join_all(opened)).await?;
        let tags: Vec<_> = consumers.iter().map(|(_, consumer)| consumer.tag()).collect();
        let deliveries = consumers.into_iter().map(|(source, consumer)| {
            let deliveries = consumer.map(move |delivery| Some((source, delivery)));
            deliveries.chain(stream::iter([None]))
        });
        let mut deliveries = stream::select_all(deliveries.map(|stream| stream.boxed()));

        let mut received = Vec::with_capacity(enough);
        while received.len() < enough {
            tokio::select! {
                biased;
                next = deliveries.next() => match next.flatten() {
                    Some((source, delivery)) => received.push((source, self.arrived(delivery)?)),
                    None => return Err(Error::new(ErrorKind::Unavailable, "the broker stopped delivering")),
                },
                () = tokio::time::sleep(timeout) => break,
                () = reply.closed() => break,
            }
        }
        let closed = tags.into_iter().map(|tag| self.channel.basic_cancel(tag, BasicCancelOptions::default()));
        await_reply("stop receiving jobs", try_join_all(closed)).await?;
        // Jobs that the server sent before it closed the consumers belong to this channel too.
        while let Some(next) = deliveries.next().await {
            if let Some((source, delivery)) = next {
                received.push((source, self.arrived(delivery)?));
            }
        }
        Ok(received)
    }

    fn arrived(&self, delivery: lapin::Result<AmqpDelivery>) -> Result<AmqpDelivery> {
        let delivery = delivery.map_err(|error| failed("receive jobs", error))?;
        self.unsettled.lock().add(delivery.delivery_tag);
        Ok(delivery)
    }

    fn delivery(&self, source: &Source, message: AmqpDelivery, requeuer: &Arc<dyn RequeueOnDrop>) -> Delivery {
        let tag =
            DeliveryTag { message: self.number, delivery: i64::try_from(message.delivery_tag).unwrap_or(i64::MAX) };
        let body = Bytes::from(message.data);
        let (job, unreadable) = message::read(source, &self.pool, &message.properties, body);
        let requeuer = Arc::clone(requeuer);
        match unreadable {
            None => Delivery::new(job, message.redelivered, tag, requeuer),
            Some(reason) => Delivery::unreadable(job, &reason, message.redelivered, tag, requeuer),
        }
    }

    /// Settles those deliveries that this channel still holds, and waits until the server has processed that.
    pub(super) async fn settle(&self, settled: &[(DeliveryTag, Settlement)]) -> Result<()> {
        let mut acknowledged = Vec::new();
        let mut is_stale = true;
        for (tag, settlement) in settled {
            match settlement {
                Settlement::Requeue => is_stale &= !self.requeue(*tag),
                Settlement::Ack => acknowledged.extend(self.remove_unsettled(*tag)),
            }
        }
        is_stale &= acknowledged.is_empty();
        if is_stale {
            return Ok(());
        }
        acknowledged.sort_unstable();
        // Those below the first unsettled tag are acknowledged together, which costs the queue one command.
        let unsettled = self.unsettled.lock().tags.first().copied();
        let together = acknowledged.partition_point(|tag| unsettled.is_none_or(|unsettled| *tag < unsettled));
        if let Some(last) = together.checked_sub(1) {
            self.send_unconfirmed(self.channel.basic_ack(acknowledged[last], BasicAckOptions { multiple: true }));
        }
        for tag in &acknowledged[together..] {
            self.send_unconfirmed(self.channel.basic_ack(*tag, BasicAckOptions { multiple: false }));
        }
        // The server sends no reply to an acknowledgement. A reply to a later request on the channel shows that it has
        // processed them all.
        await_reply("settle jobs", self.channel.basic_qos(1, BasicQosOptions::default())).await
    }

    /// Requeues a delivery. `false`: this channel does not hold it.
    pub(super) fn requeue(&self, tag: DeliveryTag) -> bool {
        let delivery = self.remove_unsettled(tag);
        if let Some(tag) = delivery {
            self.send_unconfirmed(
                self.channel.basic_nack(tag, BasicNackOptions { requeue: true, ..BasicNackOptions::default() }),
            );
        }
        delivery.is_some()
    }

    /// Passes a request without a reply to the driver, which sends requests in order.
    fn send_unconfirmed(&self, request: impl Future<Output = lapin::Result<()>>) {
        if let Some(Err(error)) = request.now_or_never() {
            tracing::debug!(%error, "cannot settle a job: the channel is closed, and the job is requeued");
        }
    }

    /// Removes a delivery from those that this channel holds, and returns its tag. `None`: the channel does not hold
    /// it.
    fn remove_unsettled(&self, tag: DeliveryTag) -> Option<u64> {
        let delivery = u64::try_from(tag.delivery).ok()?;
        (tag.message == self.number && self.unsettled.lock().tags.remove(&delivery)).then_some(delivery)
    }

    /// Closes the channel, upon which the server requeues its deliveries.
    pub(super) async fn close(&self) -> Result<()> {
        await_reply("close a channel", self.channel.close(lapin::protocol::constants::REPLY_SUCCESS, "done".into()))
            .await
    }
}
