//! The task behind a consumer. It alone takes, settles and requeues the entries of that consumer.
//!
//! It handles requests in order, so a dropped delivery is requeued before the next receive reads the streams. A caller's
//! future never takes an entry itself, so dropping it loses none.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use redis::{Value, cmd};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::entry::{Entry, array, text};
use super::streams::{EntryName, GROUP, Scripts, StreamNumber, Streams};
use crate::connection::Redis;
use queue::driver::{Delivery, DeliveryTag, RequeueOnDrop, Settlement};
use queue::{Error, PoolName, Result};

/// How often a consumer sends a heartbeat and reclaims the entries of expired consumers.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);

/// A consumer expires when it has sent no heartbeat for this time, which is three heartbeats.
pub(super) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(6);

/// The ages of a consumer's former heartbeat with which its next one is on time.
///
/// Consumers that were delayed together sent their last heartbeats within [`HEARTBEAT_EVERY`] of each other. So while one
/// of them is on time, none of the others has expired. A second heartbeat right after a delay proves nothing.
const ON_TIME: std::ops::RangeInclusive<i64> = 1_000..=4_000;

/// The shortest time between two searches for expired consumers, over all consumers of a pool.
pub(super) const RECLAIM_EVERY: Duration = Duration::from_secs(1);

/// The most entries that one script reclaims. The server does nothing else while a script runs.
pub(super) const MAX_RECLAIMED_ENTRIES: usize = 500;

/// How long the server lets a consumer wait. It is well below [`HEARTBEAT_TIMEOUT`], so that no consumer receives an
/// entry after it has expired.
const BLOCK: Duration = Duration::from_secs(2);

/// The most entries that one script takes.
const MAX_TAKEN_ENTRIES: usize = 256;

/// The number of bytes at which the script takes no further entry. The connection is shared, so an answer must be short.
const MAX_TAKEN_BYTES: usize = 4 * 1024 * 1024;

/// The most requests of a consumer that are handled together.
const MAX_REQUESTS: usize = 256;

/// A request of a consumer to its session.
#[derive(Debug)]
pub(super) enum Request {
    Receive { max: usize, reply: oneshot::Sender<Result<Vec<Delivery>>> },
    Settle { settled: Vec<(DeliveryTag, Settlement)>, reply: oneshot::Sender<Result<()>> },
    Requeue(DeliveryTag),
}

pub(super) struct ConsumerSession {
    redis: Redis,
    pool: PoolName,
    streams: Streams,
    scripts: Arc<Scripts>,
    /// The consumer's name in the group and among the heartbeats. No other consumer ever has this name.
    name: String,
    /// The delivered entries that are not settled yet, by the number in their tag.
    unsettled: HashMap<i64, EntryName>,
    last_tag: i64,
    receives: VecDeque<PendingReceive>,
    /// The entries that this consumer held at the last heartbeat according to the server, and that are not in
    /// `unsettled`.
    unknown_entries: HashSet<EntryName>,
    /// The last blocking read failed.
    wait_failed: bool,
    requeue_on_drop: Arc<dyn RequeueOnDrop>,
}

struct PendingReceive {
    max: usize,
    reply: oneshot::Sender<Result<Vec<Delivery>>>,
}

/// How an entry is settled.
#[derive(Clone, Copy)]
enum Disposition {
    Ack,
    Requeue,
    /// Requeue the entry without the mark `redelivered`, because no caller has seen it.
    RequeueUnseen,
}

impl Disposition {
    /// The name in the script.
    fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Requeue => "requeue",
            Self::RequeueUnseen => "requeue_unseen",
        }
    }
}

impl ConsumerSession {
    pub(super) fn new(
        redis: &Redis,
        pool: &PoolName,
        scripts: &Arc<Scripts>,
        requeue_on_drop: Arc<dyn RequeueOnDrop>,
    ) -> Self {
        Self {
            redis: redis.clone(),
            pool: pool.clone(),
            streams: Streams::of(redis, pool),
            scripts: Arc::clone(scripts),
            name: uuid::Uuid::now_v7().to_string(),
            unsettled: HashMap::new(),
            last_tag: 0,
            receives: VecDeque::new(),
            unknown_entries: HashSet::new(),
            wait_failed: false,
            requeue_on_drop,
        }
    }

    /// Runs until the consumer is dropped. Then all entries that it holds are requeued, even those whose deliveries still
    /// exist.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        let mut heartbeats = interval(HEARTBEAT_EVERY);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Option<BoxFuture<'static, Result<Value>>> = None;
        let mut requests = Vec::new();
        loop {
            tokio::select! {
                count = inbox.recv_many(&mut requests, MAX_REQUESTS) => match count {
                    0 => break,
                    _ => self.handle(&mut requests).await,
                },
                Some(answer) = OptionFuture::from(waiting.as_mut()) => {
                    waiting = None;
                    self.handle_wakeup(answer).await;
                }
                _ = heartbeats.tick() => self.heartbeat().await,
            }
            self.receives.retain(|receive| !receive.reply.is_closed());
            if waiting.is_none() && !self.receives.is_empty() {
                waiting = Some(self.wait());
            }
        }
        drop(waiting);
        if let Err(error) = self.script::<()>("leave", &self.scripts.leave, vec![self.name.clone()]).await {
            tracing::warn!(%error, "a consumer could not leave; its entries are reclaimed when its heartbeat expires");
        }
    }

    async fn handle(&mut self, requests: &mut Vec<Request>) {
        let mut settling = Vec::new();
        for request in requests.drain(..) {
            match request {
                Request::Requeue(tag) => settling.extend(self.remove(tag, Disposition::Requeue)),
                Request::Settle { settled, reply } => {
                    for (tag, settlement) in settled {
                        let disposition = match settlement {
                            Settlement::Ack => Disposition::Ack,
                            Settlement::Requeue => Disposition::Requeue,
                        };
                        settling.extend(self.remove(tag, disposition));
                    }
                    let answer = self.settle(std::mem::take(&mut settling)).await;
                    // The caller may have dropped its future.
                    let _ = reply.send(answer);
                }
                Request::Receive { max, reply } => {
                    self.requeue(std::mem::take(&mut settling)).await;
                    self.receives.push_back(PendingReceive { max, reply });
                    self.serve_receives().await;
                }
            }
        }
        self.requeue(settling).await;
    }

    /// Answers the pending receives in order, until no entry is left.
    async fn serve_receives(&mut self) {
        while let Some(receive) = self.next_receive() {
            match self.take(receive.max).await {
                Ok(entries) if entries.is_empty() => {
                    self.receives.push_front(receive);
                    return;
                }
                Ok(entries) => self.deliver(receive, entries).await,
                Err(error) => {
                    self.receives.push_front(receive);
                    return self.fail_receives(error);
                }
            }
        }
    }

    async fn take(&self, max: usize) -> Result<Vec<Entry>> {
        let arguments =
            vec![self.name.clone(), max.min(MAX_TAKEN_ENTRIES).to_string(), self.offset(), MAX_TAKEN_BYTES.to_string()];
        let answer = self.script("take", &self.scripts.take, arguments).await?;
        let mut taken = Vec::new();
        for part in array(answer)? {
            let mut part = array(part)?.into_iter();
            if let (Some(Value::Int(stream)), Some(entries)) = (part.next(), part.next()) {
                taken.extend(Entry::list(StreamNumber(stream as usize), entries)?);
            }
        }
        Ok(taken)
    }

    /// Blocks until there is an entry, and takes it. For each entry the server wakes one consumer: the one that has
    /// waited longest.
    fn wait(&self) -> BoxFuture<'static, Result<Value>> {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.name).arg("COUNT").arg(1);
        command.arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS").arg(self.streams.all());
        for _ in self.streams.all() {
            command.arg(">");
        }
        let redis = self.redis.clone();
        Box::pin(async move { redis.blocking("wait for an entry", &command, BLOCK).await })
    }

    async fn handle_wakeup(&mut self, answer: Result<Value>) {
        let mut entries = match answer.and_then(|answer| self.entries_by_key(answer)) {
            Ok(entries) => {
                self.wait_failed = false;
                entries
            }
            // The streams were deleted, or the server has changed. Taking entries repairs both, or fails too.
            Err(error) if !self.wait_failed => {
                tracing::debug!(%error, "a consumer could not wait for entries; reading the streams instead");
                self.wait_failed = true;
                Vec::new()
            }
            Err(error) => return self.fail_receives(error),
        };
        entries.sort_by_key(|entry| entry.name.stream);
        if entries.is_empty() {
            return self.serve_receives().await;
        }
        let Some(receive) = self.next_receive() else {
            return self.requeue(unseen(entries)).await;
        };
        if entries.len() < receive.max {
            match self.take(receive.max - entries.len()).await {
                Ok(more) => entries.extend(more),
                Err(error) => tracing::warn!(%error, "could not take more entries than the one that woke the consumer"),
            }
            entries.sort_by_key(|entry| entry.name.stream);
        } else {
            let surplus = entries.split_off(receive.max);
            self.requeue(unseen(surplus)).await;
        }
        self.deliver(receive, entries).await;
    }

    fn entries_by_key(&self, answer: Value) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for part in array(answer)? {
            let mut part = array(part)?.into_iter();
            if let (Some(key), Some(of_stream)) = (part.next(), part.next()) {
                let key = text(key)?;
                if let Some(index) = self.streams.all().iter().position(|stream| *stream == key) {
                    entries.extend(Entry::list(StreamNumber(index + 1), of_stream)?);
                }
            }
        }
        Ok(entries)
    }

    async fn deliver(&mut self, receive: PendingReceive, entries: Vec<Entry>) {
        let mut deliveries = Vec::with_capacity(entries.len());
        for entry in entries {
            self.last_tag += 1;
            let tag = DeliveryTag { message: self.last_tag, delivery: 0 };
            self.unsettled.insert(tag.message, entry.name.clone());
            let (redelivered, on_drop) = (entry.redelivered, Arc::clone(&self.requeue_on_drop));
            // Each class has its stream of published entries right after that of requeued ones.
            let published = &self.streams.all()[(entry.name.stream.0 - 1) | 1];
            deliveries.push(match entry.into_job(&self.pool, published) {
                (job, None) => Delivery::new(job, redelivered, tag, on_drop),
                (job, Some(reason)) => Delivery::unreadable(job, &reason, redelivered, tag, on_drop),
            });
        }
        if let Err(Ok(deliveries)) = receive.reply.send(Ok(deliveries)) {
            let tags = deliveries.into_iter().map(Delivery::into_tag);
            let unseen = tags.filter_map(|tag| self.remove(tag, Disposition::RequeueUnseen)).collect();
            self.requeue(unseen).await;
        }
    }

    fn next_receive(&mut self) -> Option<PendingReceive> {
        self.receives.retain(|receive| !receive.reply.is_closed());
        self.receives.pop_front()
    }

    /// Answers all pending receives with the error.
    fn fail_receives(&mut self, error: Error) {
        let (kind, message) = (error.kind(), error.to_string());
        let mut first = Some(error);
        for receive in self.receives.drain(..) {
            // The caller may have dropped its future.
            let _ = receive.reply.send(Err(first.take().unwrap_or_else(|| Error::new(kind, &message))));
        }
    }

    /// Removes a delivery from `unsettled`. `None` where it is not there.
    fn remove(&mut self, tag: DeliveryTag, disposition: Disposition) -> Option<(EntryName, Disposition)> {
        Some((self.unsettled.remove(&tag.message)?, disposition))
    }

    async fn settle(&self, entries: Vec<(EntryName, Disposition)>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut arguments = Vec::with_capacity(3 * entries.len());
        for (name, disposition) in entries {
            arguments.extend([name.stream.to_string(), name.id, disposition.as_str().to_owned()]);
        }
        self.script("settle", &self.scripts.settle, arguments).await
    }

    async fn requeue(&self, entries: Vec<(EntryName, Disposition)>) {
        if let Err(error) = self.settle(entries).await {
            tracing::warn!(%error, "could not requeue deliveries; a later heartbeat requeues them");
        }
    }

    async fn heartbeat(&mut self) {
        if let Err(error) = self.try_heartbeat().await {
            tracing::warn!(%error, "a consumer's heartbeat failed; it expires after {HEARTBEAT_TIMEOUT:?}");
        }
    }

    /// Sends a heartbeat, requeues entries that were taken without an answer, and reclaims those of expired consumers.
    async fn try_heartbeat(&mut self) -> Result<()> {
        let limit = self.unsettled.len() + MAX_TAKEN_ENTRIES;
        let arguments = vec![self.name.clone(), limit.to_string(), self.offset()];
        let (age, pending): (i64, Vec<(usize, String)>) =
            self.script("heartbeat", &self.scripts.heartbeat, arguments).await?;
        let unsettled: HashSet<&EntryName> = self.unsettled.values().collect();
        let names = pending.into_iter().map(|(stream, id)| EntryName { stream: StreamNumber(stream), id });
        let unknown: HashSet<EntryName> = names.filter(|name| !unsettled.contains(name)).collect();
        // The answer with this entry may still be on its way. It arrives before the next heartbeat.
        let (lost, unknown) = unknown.into_iter().partition(|name| self.unknown_entries.contains(name));
        self.unknown_entries = unknown;
        let lost: HashSet<EntryName> = lost;
        if !lost.is_empty() {
            tracing::warn!(entries = lost.len(), "entries were taken and the answer was lost; requeueing them");
            self.settle(lost.into_iter().map(|name| (name, Disposition::Requeue)).collect()).await?;
        }
        // The server may have been away for all consumers. A consumer that is late itself reclaims nothing.
        if !ON_TIME.contains(&age) {
            return Ok(());
        }
        let (redis, streams, scripts) = (&self.redis, &self.streams, &*self.scripts);
        while reclaim_expired(redis, streams, scripts, HEARTBEAT_TIMEOUT, RECLAIM_EVERY).await? >= MAX_RECLAIMED_ENTRIES
        {
        }
        Ok(())
    }

    async fn script<T: redis::FromRedisValue>(
        &self,
        action: &str,
        script: &redis::Script,
        arguments: Vec<String>,
    ) -> Result<T> {
        let arguments = arguments.into_iter().map(String::into_bytes).collect();
        self.redis.script(action, script, &self.streams.keys, arguments).await
    }

    fn offset(&self) -> String {
        self.redis.clock().offset_milliseconds().to_string()
    }
}

fn unseen(entries: Vec<Entry>) -> Vec<(EntryName, Disposition)> {
    entries.into_iter().map(|entry| (entry.name, Disposition::RequeueUnseen)).collect()
}

/// Requeues the entries of consumers that have sent no heartbeat for `timeout`, and returns their number. Does nothing if
/// the last search was less than `every` ago.
pub(super) async fn reclaim_expired(
    redis: &Redis,
    streams: &Streams,
    scripts: &Scripts,
    timeout: Duration,
    every: Duration,
) -> Result<usize> {
    let milliseconds = |duration: Duration| duration.as_millis().to_string().into_bytes();
    let offset = redis.clock().offset_milliseconds().to_string().into_bytes();
    let limit = MAX_RECLAIMED_ENTRIES.to_string().into_bytes();
    let arguments = vec![milliseconds(timeout), milliseconds(every), limit, offset];
    redis.script("reclaim expired deliveries", &scripts.reclaim, &streams.keys, arguments).await
}
