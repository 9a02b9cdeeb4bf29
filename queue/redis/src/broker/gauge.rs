//! Reading how much waits.

use async_trait::async_trait;
use futures::future::join_all;
use redis::{Script, Value, from_redis_value};

use super::streams::Streams;
use super::{entry, streams};
use crate::connection::Redis;
use queue::driver::{Depth, Gauge, same_for_all};
use queue::{Error, ErrorKind, PoolName, Result};

/// How many pools a script reads: the server does nothing else while it runs. All scripts are on their way at once.
const PIECE_POOLS: usize = 50;

pub(super) struct RedisGauge {
    redis: Redis,
    script: Script,
}

/// Of each stream of a pool what waits, what is held, and the first id of what waits.
type Counted = Vec<(i64, i64, String)>;

impl RedisGauge {
    pub(super) fn new(redis: &Redis) -> Self {
        Self { redis: redis.clone(), script: streams::depth() }
    }

    async fn depths_of(&self, pools: &[PoolName]) -> Result<Vec<Result<Depth>>> {
        let keys: Vec<String> = pools.iter().flat_map(|pool| Streams::of(&self.redis, pool).all().to_vec()).collect();
        let answers: Vec<Value> = self.redis.script("read the depths", &self.script, &keys, Vec::new()).await?;
        if answers.len() != pools.len() {
            let message = format!("redis gave {} depths of {} pools", answers.len(), pools.len());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(pools.iter().zip(answers).map(|(pool, answer)| depth(pool, answer)).collect())
    }
}

#[async_trait]
impl Gauge for RedisGauge {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let pieces = pools.chunks(PIECE_POOLS).map(async |piece| same_for_all(piece, self.depths_of(piece).await));
        join_all(pieces).await.into_iter().flatten().collect()
    }
}

/// A pool's answer: what was counted, 0 where nothing is there to be counted, or why that failed.
fn depth(pool: &PoolName, answer: Value) -> Result<Depth> {
    if let Value::BulkString(why) = &answer {
        let why = String::from_utf8_lossy(why);
        return Err(Error::new(ErrorKind::Refused, format_args!("redis: read the depth of {pool}: {why}")));
    }
    let corrupt = |error| Error::caused(ErrorKind::Corrupt, format_args!("redis: read the depth of {pool}"), error);
    let mut depth = Depth { in_flight: Some(0), ..Depth::default() };
    if answer == Value::Int(0) {
        return Ok(depth);
    }
    let counted: Counted = from_redis_value(answer).map_err(corrupt)?;
    for (index, (waiting, held, first_id)) in counted.into_iter().enumerate() {
        // Below 0 where somebody deleted entries that are held.
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        depth.waiting_by_class[index / 2] += count(waiting);
        depth.in_flight = depth.in_flight.map(|held_so_far| held_so_far + count(held));
        let published_at = entry::published_at(&first_id);
        depth.oldest_waiting_at = [depth.oldest_waiting_at, published_at].into_iter().flatten().min();
    }
    Ok(depth)
}
