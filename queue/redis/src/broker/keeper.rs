//! Who keeps a consumer's deliveries: one task per consumer, which alone takes, settles and gives back.
//!
//! What its consumer asks for is done in that order, so a delivery that was dropped is back before the next receive looks.
//! No future of a caller takes anything, so none that is dropped can lose it.

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

/// How often a consumer says that it is alive, and looks for others that do not.
const BEAT: Duration = Duration::from_secs(2);

/// A consumer that has said nothing for so long is dead: it missed three beats.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(6);

/// The dead of a pool are looked for once in this time, whoever does it.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How many entries are given back for the dead in one step; the server does nothing else meanwhile.
pub(super) const SWEEP_ENTRIES: usize = 500;

/// How long the server lets a consumer wait. It ends long before [`SILENT_AFTER`], so none is handed an entry after its death.
const BLOCK: Duration = Duration::from_secs(2);

/// The most entries taken in one step.
const MOST_ENTRIES: usize = 256;

/// How many messages of a consumer are dealt with in one step.
const MOST_MESSAGES: usize = 256;

/// What a consumer asks of its keeper.
pub(super) enum Message {
    Receive { max: usize, reply: oneshot::Sender<Result<Vec<Delivery>>> },
    Settle { settled: Vec<(DeliveryTag, Settlement)>, reply: oneshot::Sender<Result<()>> },
    GiveBack(DeliveryTag),
}

pub(super) struct Keeper {
    redis: Redis,
    pool: PoolName,
    streams: Streams,
    scripts: Arc<Scripts>,
    /// In the group, and among the living. No other ever has it.
    name: String,
    /// What was handed out, by the number in its tag.
    held: HashMap<i64, EntryName>,
    handed_out: i64,
    receiving: VecDeque<Receiving>,
    /// What the server said at the last beat that we hold, and we did not know of.
    strangers: HashSet<EntryName>,
    /// The last time it waited, that failed.
    could_not_wait: bool,
    holder: Arc<dyn RequeueOnDrop>,
}

struct Receiving {
    max: usize,
    reply: oneshot::Sender<Result<Vec<Delivery>>>,
}

/// What becomes of an entry.
#[derive(Clone, Copy)]
enum How {
    Done,
    Again,
    /// Again, as if it had never been taken.
    Untouched,
}

impl Keeper {
    pub(super) fn new(redis: &Redis, pool: &PoolName, scripts: &Arc<Scripts>, holder: Arc<dyn RequeueOnDrop>) -> Self {
        Self {
            redis: redis.clone(),
            pool: pool.clone(),
            streams: Streams::of(redis, pool),
            scripts: Arc::clone(scripts),
            name: uuid::Uuid::now_v7().to_string(),
            held: HashMap::new(),
            handed_out: 0,
            receiving: VecDeque::new(),
            strangers: HashSet::new(),
            could_not_wait: false,
            holder,
        }
    }

    /// Until the consumer is gone; then what it held is given back, even if its deliveries still live.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Option<BoxFuture<'static, Result<Value>>> = None;
        let mut messages = Vec::new();
        loop {
            tokio::select! {
                count = inbox.recv_many(&mut messages, MOST_MESSAGES) => match count {
                    0 => break,
                    _ => self.deal_with(&mut messages).await,
                },
                Some(answer) = OptionFuture::from(waiting.as_mut()) => {
                    waiting = None;
                    self.woken(answer).await;
                }
                _ = beats.tick() => self.beat().await,
            }
            self.receiving.retain(|receiving| !receiving.reply.is_closed());
            if waiting.is_none() && !self.receiving.is_empty() {
                waiting = Some(self.wait());
            }
        }
        drop(waiting);
        if let Err(error) = self.script::<()>("leave", &self.scripts.leave, vec![self.name.clone()]).await {
            tracing::warn!(%error, "a consumer could not leave: it will be taken for dead");
        }
    }

    async fn deal_with(&mut self, messages: &mut Vec<Message>) {
        let mut settling = Vec::new();
        for message in messages.drain(..) {
            match message {
                Message::GiveBack(tag) => settling.extend(self.released(tag, How::Again)),
                Message::Settle { settled, reply } => {
                    for (tag, settlement) in settled {
                        let how = match settlement {
                            Settlement::Ack => How::Done,
                            Settlement::Requeue => How::Again,
                        };
                        settling.extend(self.released(tag, how));
                    }
                    let answer = self.settle(std::mem::take(&mut settling)).await;
                    // Who asked may be gone; it is done all the same.
                    let _ = reply.send(answer);
                }
                Message::Receive { max, reply } => {
                    self.give_back(std::mem::take(&mut settling)).await;
                    self.receiving.push_back(Receiving { max, reply });
                    self.serve().await;
                }
            }
        }
        self.give_back(settling).await;
    }

    /// Hands out what is there, to who asked first.
    async fn serve(&mut self) {
        while let Some(receiving) = self.next_receiving() {
            match self.take(receiving.max).await {
                Ok(entries) if entries.is_empty() => {
                    self.receiving.push_front(receiving);
                    return;
                }
                Ok(entries) => self.hand_out(receiving, entries).await,
                Err(error) => {
                    self.receiving.push_front(receiving);
                    return self.fail(error);
                }
            }
        }
    }

    async fn take(&self, max: usize) -> Result<Vec<Entry>> {
        let arguments = vec![self.name.clone(), max.min(MOST_ENTRIES).to_string(), self.offset()];
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

    /// One entry as soon as there is one. The server wakes one consumer per entry, the one that has waited longest.
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

    async fn woken(&mut self, answer: Result<Value>) {
        let mut entries = match answer.and_then(|answer| self.entries_by_key(answer)) {
            Ok(entries) => {
                self.could_not_wait = false;
                entries
            }
            // The streams may have been deleted, or the server have moved; looking again makes good both, or fails too.
            Err(error) if !self.could_not_wait => {
                tracing::debug!(%error, "a consumer could not wait, and looks again");
                self.could_not_wait = true;
                Vec::new()
            }
            Err(error) => return self.fail(error),
        };
        entries.sort_by_key(|entry| entry.name.stream);
        if entries.is_empty() {
            return self.serve().await;
        }
        let Some(receiving) = self.next_receiving() else {
            return self.give_back(untouched(entries)).await;
        };
        if entries.len() < receiving.max {
            match self.take(receiving.max - entries.len()).await {
                Ok(more) => entries.extend(more),
                Err(error) => tracing::warn!(%error, "could not take more than what a consumer was woken for"),
            }
            entries.sort_by_key(|entry| entry.name.stream);
        } else {
            let surplus = entries.split_off(receiving.max);
            self.give_back(untouched(surplus)).await;
        }
        self.hand_out(receiving, entries).await;
    }

    fn entries_by_key(&self, answer: Value) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for part in array(answer)? {
            let mut part = array(part)?.into_iter();
            if let (Some(key), Some(of_stream)) = (part.next(), part.next()) {
                let key = text(key)?;
                if let Some(index) = self.streams.all().iter().position(|known| *known == key) {
                    entries.extend(Entry::list(StreamNumber(index + 1), of_stream)?);
                }
            }
        }
        Ok(entries)
    }

    async fn hand_out(&mut self, receiving: Receiving, entries: Vec<Entry>) {
        let mut deliveries = Vec::with_capacity(entries.len());
        for entry in entries {
            self.handed_out += 1;
            let tag = DeliveryTag { message: self.handed_out, delivery: 0 };
            self.held.insert(tag.message, entry.name.clone());
            let (redelivered, holder) = (entry.redelivered, Arc::clone(&self.holder));
            // A class's published stream comes after that of what was given back.
            let published = &self.streams.all()[(entry.name.stream.0 - 1) | 1];
            deliveries.push(match entry.into_job(&self.pool, published) {
                (job, None) => Delivery::new(job, redelivered, tag, holder),
                (job, Some(reason)) => Delivery::unreadable(job, &reason, redelivered, tag, holder),
            });
        }
        if let Err(Ok(deliveries)) = receiving.reply.send(Ok(deliveries)) {
            let tags = deliveries.into_iter().map(Delivery::into_tag);
            let back = tags.filter_map(|tag| self.released(tag, How::Untouched)).collect();
            self.give_back(back).await;
        }
    }

    fn next_receiving(&mut self) -> Option<Receiving> {
        self.receiving.retain(|receiving| !receiving.reply.is_closed());
        self.receiving.pop_front()
    }

    /// Tells all who wait.
    fn fail(&mut self, error: Error) {
        let (kind, message) = (error.kind(), error.to_string());
        let mut first = Some(error);
        for receiving in self.receiving.drain(..) {
            // Who asked may be gone.
            let _ = receiving.reply.send(Err(first.take().unwrap_or_else(|| Error::new(kind, &message))));
        }
    }

    fn released(&mut self, tag: DeliveryTag, how: How) -> Option<(EntryName, How)> {
        Some((self.held.remove(&tag.message)?, how))
    }

    async fn settle(&self, entries: Vec<(EntryName, How)>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut arguments = Vec::with_capacity(3 * entries.len());
        for (name, how) in entries {
            let how = match how {
                How::Done => "done",
                How::Again => "again",
                How::Untouched => "untouched",
            };
            arguments.extend([name.stream.to_string(), name.id, how.to_owned()]);
        }
        self.script("settle", &self.scripts.settle, arguments).await
    }

    async fn give_back(&self, entries: Vec<(EntryName, How)>) {
        if let Err(error) = self.settle(entries).await {
            tracing::warn!(%error, "deliveries could not be given back at once: they will be at one of the next beats");
        }
    }

    /// Says that the consumer lives; gives back what it holds by the server's account and not by its own, because an
    /// answer was lost; and what the dead hold.
    async fn beat(&mut self) {
        if let Err(error) = self.try_beat().await {
            tracing::warn!(%error, "a consumer's beat failed: silent for {SILENT_AFTER:?}, it is taken for dead");
        }
    }

    async fn try_beat(&mut self) -> Result<()> {
        let limit = self.held.len() + MOST_ENTRIES;
        let arguments = vec![self.name.clone(), limit.to_string(), self.offset()];
        let pending: Vec<(usize, String)> = self.script("beat", &self.scripts.beat, arguments).await?;
        let known: HashSet<&EntryName> = self.held.values().collect();
        let names = pending.into_iter().map(|(stream, id)| EntryName { stream: StreamNumber(stream), id });
        let strangers: HashSet<EntryName> = names.filter(|name| !known.contains(name)).collect();
        // An answer may be on its way; at the next beat it is not any more.
        let (lost, strangers) = strangers.into_iter().partition(|name| self.strangers.contains(name));
        self.strangers = strangers;
        let lost: HashSet<EntryName> = lost;
        if !lost.is_empty() {
            tracing::warn!(entries = lost.len(), "entries were taken and their answer was lost: they are given back");
            self.settle(lost.into_iter().map(|name| (name, How::Again)).collect()).await?;
        }
        while sweep(&self.redis, &self.streams, &self.scripts, SILENT_AFTER, SWEEP_EVERY).await? >= SWEEP_ENTRIES {}
        Ok(())
    }

    async fn script<T: redis::FromRedisValue>(
        &self,
        doing: &str,
        script: &redis::Script,
        arguments: Vec<String>,
    ) -> Result<T> {
        let arguments = arguments.into_iter().map(String::into_bytes).collect();
        self.redis.script(doing, script, &self.streams.keys, arguments).await
    }

    fn offset(&self) -> String {
        self.redis.clock().offset_milliseconds().to_string()
    }
}

fn untouched(entries: Vec<Entry>) -> Vec<(EntryName, How)> {
    entries.into_iter().map(|entry| (entry.name, How::Untouched)).collect()
}

/// Gives back what consumers hold that have been silent for longer than `silent_after`; how many entries. Nothing if that
/// was done less than `every` ago.
pub(super) async fn sweep(
    redis: &Redis,
    streams: &Streams,
    scripts: &Scripts,
    silent_after: Duration,
    every: Duration,
) -> Result<usize> {
    let milliseconds = |duration: Duration| duration.as_millis().to_string().into_bytes();
    let offset = redis.clock().offset_milliseconds().to_string().into_bytes();
    let limit = SWEEP_ENTRIES.to_string().into_bytes();
    let arguments = vec![milliseconds(silent_after), milliseconds(every), limit, offset];
    redis.script("sweep", &scripts.sweep, &streams.keys, arguments).await
}
