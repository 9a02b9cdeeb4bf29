//! Reading how much waits.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::future::join_all;
use lapin::Channel;
use lapin::types::ShortString;

use super::error::is_of_one_queue;
use super::known::{Known, Plan};
use super::link::Link;
use super::queues::{self, Source};
use queue::driver::{Depth, Gauge};
use queue::{Error, PoolName, Result, Routes};

/// How many questions are on their way at once, where the queues are there as far as known.
const AT_ONCE: usize = 512;

/// How many channels are used where that is not known: asking for a queue that is not there closes one.
const CHANNELS: usize = 16;

/// Asks the queues themselves: the numbers of the management API are seconds old.
pub(super) struct RabbitMqGauge {
    link: Arc<Link>,
    routes: Routes,
    channel: tokio::sync::Mutex<Option<Channel>>,
    known: Mutex<Known>,
}

/// How much waits in queues.
type Waiting = HashMap<ShortString, Result<u64>>;

impl RabbitMqGauge {
    pub(super) fn new(link: &Arc<Link>, routes: &Routes) -> Self {
        Self {
            link: Arc::clone(link),
            routes: routes.clone(),
            channel: tokio::sync::Mutex::default(),
            known: Mutex::default(),
        }
    }

    async fn waiting(&self, names: HashSet<ShortString>) -> Waiting {
        let mut channel = self.channel.lock().await;
        let Plan { there, unknown, missing } = self.known().plan(names);
        let apart = unknown.chunks(unknown.len().div_ceil(CHANNELS).max(1));
        let apart = apart.map(async |names| self.ask(&mut None, names, 1).await);
        let (there, unknown) = tokio::join!(self.ask(&mut channel, &there, AT_ONCE), join_all(apart));
        let missing = missing.into_iter().map(|name| (name, Ok(0)));
        missing.chain(there).chain(unknown.into_iter().flatten()).collect()
    }

    /// Asks for queues, `at_once` of them at a time, on the channel that is kept or another. When one closes the channel,
    /// those behind it are asked for again.
    async fn ask(&self, kept: &mut Option<Channel>, mut names: &[ShortString], at_once: usize) -> Waiting {
        let (mut found, mut is_new) = (Waiting::new(), false);
        while !names.is_empty() {
            // Not kept while it is in use: a reading that is given up may leave questions on it.
            let channel = match kept.take() {
                Some(channel) => channel,
                None => match self.link.channel().await {
                    Ok((_, channel)) => {
                        is_new = true;
                        channel
                    }
                    Err(error) => return with_error(found, names, &error),
                },
            };
            let (counts, closed) = ask_on(&channel, &names[..names.len().min(at_once)]).await;
            let (answered, rest) = names.split_at(counts.len());
            for (name, count) in answered.iter().zip(counts) {
                self.known().is_there(name);
                found.insert(name.clone(), Ok(count));
            }
            names = rest;
            let Some(why) = closed else {
                *kept = Some(channel);
                continue;
            };
            let Some((name, behind)) = rest.split_first() else { break };
            let answer = match why {
                Ok(()) => {
                    self.known().is_missing(name);
                    Ok(0)
                }
                Err(error) if is_of_one_queue(&error) => {
                    self.known().forget(name);
                    Err(error)
                }
                // The connection may have broken since the last reading.
                Err(_) if !is_new => continue,
                Err(error) => return with_error(found, names, &error),
            };
            found.insert(name.clone(), answer);
            names = behind;
        }
        found
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What it knows is what to ask first; a panic in the middle of a change costs a reading at most.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for queues in one round trip. How much waits in those before the first that closed the channel, and why that one
/// did: it is not there, or an error.
async fn ask_on(channel: &Channel, names: &[ShortString]) -> (Vec<u64>, Option<Result<()>>) {
    let mut counts = Vec::with_capacity(names.len());
    for answer in join_all(names.iter().map(|name| queues::waiting(channel, name.clone()))).await {
        match answer {
            Ok(Some(count)) => counts.push(count),
            // Nobody has published to a queue that is not there.
            Ok(None) => return (counts, Some(Ok(()))),
            Err(error) => return (counts, Some(Err(error))),
        }
    }
    (counts, None)
}

fn with_error(mut found: Waiting, names: &[ShortString], error: &Error) -> Waiting {
    found.extend(names.iter().map(|name| (name.clone(), Err(error.duplicate()))));
    found
}

#[async_trait]
impl Gauge for RabbitMqGauge {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let of_pool = |pool| queues::sources(self.link.prefix(), pool, &self.routes);
        let sources: Vec<Result<Vec<Source>>> = pools.iter().map(of_pool).collect();
        let names = sources.iter().flatten().flatten().map(|source| source.queue.clone()).collect();
        let waiting = self.waiting(names).await;
        let depth = |sources: Result<Vec<Source>>| {
            let mut depth = Depth { in_flight: None, ..Depth::default() };
            for Source { queue, class, .. } in sources? {
                match waiting.get(&queue) {
                    Some(Ok(count)) => depth.waiting_by_class[class as usize] += count,
                    Some(Err(error)) => return Err(error.duplicate()),
                    None => return Err(super::error::unanswered(format_args!("ask how much waits in {queue}"))),
                }
            }
            Ok(depth)
        };
        sources.into_iter().map(depth).collect()
    }
}
