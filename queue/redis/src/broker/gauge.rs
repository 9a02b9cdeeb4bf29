//! Reads the depths of pools.

use async_trait::async_trait;
use futures::future::join_all;
use redis::{Script, Value, from_redis_value};

use super::streams::Streams;
use super::{entry, streams};
use crate::connection::Redis;
use queue::driver::{Depth, Gauge, same_for_all};
use queue::{Error, ErrorKind, PoolName, Result};

/// The most pools that one script reads. The server does nothing else while a script runs. All scripts are sent at once.
const CHUNK_POOLS: usize = 50;

pub(super) struct RedisGauge {
    redis: Redis,
    script: Script,
}

/// For each stream of a pool: the number of waiting entries, the number of held entries, and the id of the first
/// waiting entry.
type StreamCounts = Vec<(i64, i64, String)>;

impl RedisGauge {
    pub(super) fn new(redis: &Redis) -> Self {
        Self { redis: redis.clone(), script: streams::depth() }
    }

    async fn depths_of(&self, pools: &[PoolName]) -> Result<Vec<Result<Depth>>> {
        let keys: Vec<String> = pools.iter().flat_map(|pool| Streams::of(&self.redis, pool).all().to_vec()).collect();
        let answers: Vec<Value> = self.redis.script("read the depths", &self.script, &keys, Vec::new()).await?;
        if answers.len() != pools.len() {
            let message = format!("redis returned {} depths for {} pools", answers.len(), pools.len());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(pools.iter().zip(answers).map(|(pool, answer)| depth(pool, answer)).collect())
    }
}

#[async_trait]
impl Gauge for RedisGauge {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let chunks = pools.chunks(CHUNK_POOLS).map(async |chunk| same_for_all(chunk, self.depths_of(chunk).await));
        join_all(chunks).await.into_iter().flatten().collect()
    }
}

/// The depth in a pool's answer: its counts, 0 where no stream exists, or the text of an error.
fn depth(pool: &PoolName, answer: Value) -> Result<Depth> {
    if let Value::BulkString(text) = &answer {
        let text = String::from_utf8_lossy(text);
        return Err(Error::new(ErrorKind::Unavailable, format_args!("redis: read the depth of {pool}: {text}")));
    }
    let corrupt = |error| Error::caused(ErrorKind::Corrupt, format_args!("redis: read the depth of {pool}"), error);
    let mut depth = Depth { in_flight: Some(0), ..Depth::default() };
    if answer == Value::Int(0) {
        return Ok(depth);
    }
    let counts: StreamCounts = from_redis_value(answer).map_err(corrupt)?;
    for (index, (waiting, held, first_id)) in counts.into_iter().enumerate() {
        // The count is below 0 if held entries were deleted by hand.
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        depth.waiting_by_class[index / 2] += count(waiting);
        depth.in_flight = depth.in_flight.map(|held_so_far| held_so_far + count(held));
        let published_at = entry::published_at(&first_id);
        depth.oldest_waiting_at = [depth.oldest_waiting_at, published_at].into_iter().flatten().min();
    }
    Ok(depth)
}
