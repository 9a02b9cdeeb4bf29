//! Reads how many jobs wait in the queues of pools.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use lapin::Channel;
use lapin::types::ShortString;
use parking_lot::Mutex;

use super::error::{is_channel_error, timed_out};
use super::existing_queues::{ExistingQueues, ReadingPlan};
use super::link::Link;
use super::queues::{self, Source};
use queue::driver::{Depth, Gauge};
use queue::{Error, PoolName, Result, Routes};

/// The number of requests in flight at the same time, for queues that existed at the last reading.
const MAX_IN_FLIGHT: usize = 512;

/// The number of channels for the other queues: a request for a queue that does not exist closes its channel.
const MAX_CHANNELS: usize = 16;

/// Requests the counts from the queues, because the numbers of the management API are seconds old.
pub(super) struct RabbitMqGauge {
    link: Arc<Link>,
    routes: Routes,
    channel: tokio::sync::Mutex<Option<Channel>>,
    queues: Mutex<ExistingQueues>,
}

/// The number of jobs that wait in each queue.
type Counts = HashMap<ShortString, Result<u64>>;

/// Why a queue has closed the channel.
enum Closed {
    Missing,
    Failed(Error),
}

impl RabbitMqGauge {
    pub(super) fn new(link: &Arc<Link>, routes: &Routes) -> Self {
        Self {
            link: Arc::clone(link),
            routes: routes.clone(),
            channel: tokio::sync::Mutex::default(),
            queues: Mutex::default(),
        }
    }

    async fn count(&self, names: HashSet<ShortString>) -> Counts {
        let mut channel = self.channel.lock().await;
        let ReadingPlan { existing, unchecked, missing } = self.queues.lock().plan(names);
        let chunks = unchecked.chunks(unchecked.len().div_ceil(MAX_CHANNELS).max(1));
        let chunks = chunks.map(async |names| self.count_on(&mut None, names, 1).await);
        let (existing, unchecked) =
            tokio::join!(self.count_on(&mut channel, &existing, MAX_IN_FLIGHT), join_all(chunks));
        let missing = missing.into_iter().map(|name| (name, Ok(0)));
        missing.chain(existing).chain(unchecked.into_iter().flatten()).collect()
    }

    /// Counts the jobs in queues, with at most `in_flight` requests at the same time, on `reused` or a new channel.
    /// When a queue closes the channel, the requests behind it are sent again.
    async fn count_on(&self, reused: &mut Option<Channel>, mut names: &[ShortString], in_flight: usize) -> Counts {
        let (mut found, mut is_new) = (Counts::new(), false);
        while !names.is_empty() {
            // The channel is taken out while it is in use. If the caller drops its future, replies may still arrive on
            // the channel, so it must not be used again.
            let channel = match reused.take() {
                Some(channel) => channel,
                None => match self.link.channel().await {
                    Ok((_, channel)) => {
                        is_new = true;
                        channel
                    }
                    Err(error) => return with_error(found, names, &error),
                },
            };
            let (counts, closed) = request_counts(&channel, &names[..names.len().min(in_flight)]).await;
            let (answered, rest) = names.split_at(counts.len());
            for (name, count) in answered.iter().zip(counts) {
                self.queues.lock().set_existing(name);
                found.insert(name.clone(), Ok(count));
            }
            names = rest;
            let Some(reason) = closed else {
                *reused = Some(channel);
                continue;
            };
            let Some((name, behind)) = rest.split_first() else { break };
            let count = match reason {
                Closed::Missing => {
                    self.queues.lock().set_missing(name);
                    Ok(0)
                }
                Closed::Failed(error) if is_channel_error(&error) => {
                    self.queues.lock().forget(name);
                    Err(error)
                }
                // The connection may have been lost since the last reading.
                Closed::Failed(_) if !is_new => continue,
                Closed::Failed(error) => return with_error(found, names, &error),
            };
            found.insert(name.clone(), count);
            names = behind;
        }
        found
    }
}

/// Requests the counts of queues in one round trip. Returns the counts of the queues before the first one that closed
/// the channel, and the reason why it did.
async fn request_counts(channel: &Channel, names: &[ShortString]) -> (Vec<u64>, Option<Closed>) {
    let mut counts = Vec::with_capacity(names.len());
    for count in join_all(names.iter().map(|name| queues::message_count(channel, name.clone()))).await {
        match count {
            Ok(Some(count)) => counts.push(count),
            // A queue that does not exist holds no jobs, so this is not an error.
            Ok(None) => return (counts, Some(Closed::Missing)),
            Err(error) => return (counts, Some(Closed::Failed(error))),
        }
    }
    (counts, None)
}

fn with_error(mut found: Counts, names: &[ShortString], error: &Error) -> Counts {
    found.extend(names.iter().map(|name| (name.clone(), Err(error.duplicate()))));
    found
}

#[async_trait]
impl Gauge for RabbitMqGauge {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let of_pool = |pool| queues::sources(self.link.prefix(), pool, &self.routes);
        let sources: Vec<Result<Vec<Source>>> = pools.iter().map(of_pool).collect();
        let names = sources.iter().flatten().flatten().map(|source| source.queue.clone()).collect();
        let counts = self.count(names).await;
        let depth = |sources: Result<Vec<Source>>| {
            let mut depth = Depth { in_flight: None, ..Depth::default() };
            for Source { queue, class, .. } in sources? {
                match counts.get(&queue) {
                    Some(Ok(count)) => depth.waiting_by_class[class as usize] += count,
                    Some(Err(error)) => return Err(error.duplicate()),
                    None => return Err(timed_out(format_args!("count the messages in {queue}"))),
                }
            }
            Ok(depth)
        };
        sources.into_iter().map(depth).collect()
    }
}
