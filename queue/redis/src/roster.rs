//! The live workers, in Redis: a hash per worker, and per pool a sorted set of its workers by the time their heartbeat
//! expires.
//!
//! A worker whose heartbeat has expired is deleted with the next heartbeat in its pool. Readings skip it until then. The
//! last measurements of a pool are a hash of their own. Neither a reading nor a worker that leaves deletes it.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use jiff::Timestamp;
use redis::Script;

use crate::connection::Redis;
use queue::driver::milliseconds_of;
use queue::{Error, ErrorKind, PoolName, Result};
use queue::{Measured, Roster, WorkerId, WorkerRecord, WorkerState};

static HEARTBEAT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("roster/heartbeat.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("roster/leave.lua")));
static WORKERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("roster/workers.lua")));

/// The most pools that one script or pipeline reads. The server does nothing else while a script runs.
const CHUNK_POOLS: usize = 500;

/// The fields that outlive the workers of a pool. They come last among the arguments of a heartbeat.
const MEASURED: [&str; 4] = ["batch_base_seconds", "batch_item_seconds", "batch_limit_items", "cold_start_seconds"];

pub(crate) struct RedisRoster {
    redis: Redis,
}

impl RedisRoster {
    pub(crate) fn new(redis: Redis) -> Self {
        Self { redis }
    }

    fn worker_key(&self, id: &WorkerId) -> String {
        self.redis.key(&format!("worker:{id}"))
    }

    fn pool_key(&self, pool: &PoolName) -> String {
        self.redis.key(&format!("workers:{pool}"))
    }

    fn measured_key(&self, pool: &PoolName) -> String {
        self.redis.key(&format!("measured:{pool}"))
    }

    fn prefix(&self) -> String {
        self.redis.key("")
    }

    fn offset(&self) -> String {
        self.redis.clock().offset_milliseconds().to_string()
    }
}

#[async_trait]
impl Roster for RedisRoster {
    async fn heartbeat(&self, worker: &WorkerRecord, alive: Duration) -> Result<()> {
        let mut keys = vec![self.worker_key(&worker.id), self.pool_key(&worker.pool)];
        keys.extend(worker.measured().map(|_| self.measured_key(&worker.pool)));
        let (id, pool) = (worker.id.to_string(), worker.pool.to_string());
        let mut arguments = vec![self.prefix(), self.offset(), id, pool, milliseconds_of(alive).to_string()];
        let fields = [
            ("state", worker.state.as_str().to_owned()),
            ("started_at", worker.started_at.as_millisecond().to_string()),
            // The text that Rust writes for a number is parsed to exactly the same number.
            ("batch_items", worker.batch_items.to_string()),
            ("batch_seconds", worker.batch_seconds.to_string()),
        ];
        let measured = [
            worker.batch_base_seconds.to_string(),
            worker.batch_item_seconds.to_string(),
            worker.batch_limit_items.to_string(),
            worker.cold_start_seconds.to_string(),
        ];
        arguments.extend(
            fields
                .into_iter()
                .chain(MEASURED.into_iter().zip(measured))
                .flat_map(|(name, value)| [name.to_owned(), value]),
        );
        let arguments = arguments.into_iter().map(String::into_bytes).collect();
        self.redis.script("send a heartbeat", &HEARTBEAT, &keys, arguments).await
    }

    async fn leave(&self, id: &WorkerId) -> Result<()> {
        let arguments = [self.prefix(), id.to_string()].map(String::into_bytes).to_vec();
        self.redis.script("leave", &LEAVE, &[self.worker_key(id)], arguments).await
    }

    async fn workers(&self, pools: &[PoolName]) -> Result<Vec<Vec<WorkerRecord>>> {
        // All scripts are sent before the first answer.
        let chunks = try_join_all(pools.chunks(CHUNK_POOLS).map(|chunk| self.workers_of(chunk))).await?;
        Ok(chunks.into_iter().flatten().collect())
    }

    async fn measured(&self, pools: &[PoolName]) -> Result<Vec<Option<Measured>>> {
        let chunks = try_join_all(pools.chunks(CHUNK_POOLS).map(|chunk| self.measured_in(chunk))).await?;
        Ok(chunks.concat())
    }
}

impl RedisRoster {
    /// [`Roster::workers`] of at most [`CHUNK_POOLS`] pools.
    async fn workers_of(&self, pools: &[PoolName]) -> Result<Vec<Vec<WorkerRecord>>> {
        let keys: Vec<_> = pools.iter().map(|pool| self.pool_key(pool)).collect();
        let arguments = [self.prefix(), self.offset()].map(String::into_bytes).to_vec();
        let found: Vec<(usize, String, HashMap<String, String>)> =
            self.redis.script("read the roster", &WORKERS, &keys, arguments).await?;
        let mut workers = vec![Vec::new(); pools.len()];
        for (number, id, fields) in found {
            // Lua counts from 1.
            let place = number.wrapping_sub(1);
            let (Some(pool), Some(of_pool)) = (pools.get(place), workers.get_mut(place)) else {
                let message = format!("redis returned pool number {number} of {} for worker {id:?}", pools.len());
                return Err(Error::new(ErrorKind::Corrupt, message));
            };
            // One unreadable worker must not hide the others from the scaler.
            match record(&id, pool, &fields) {
                Ok(worker) => of_pool.push(worker),
                Err(error) => tracing::warn!(%pool, %error, "cannot read a worker; it is not counted"),
            }
        }
        for of_pool in &mut workers {
            of_pool.sort_by(|one, other| one.id.cmp(&other.id));
        }
        Ok(workers)
    }

    async fn measured_in(&self, pools: &[PoolName]) -> Result<Vec<Option<Measured>>> {
        let mut pipeline = redis::pipe();
        for pool in pools {
            pipeline.cmd("HMGET").arg(self.measured_key(pool)).arg(&MEASURED);
        }
        let answers: Vec<[Option<String>; 4]> = self.redis.pipeline("read the measurements", &pipeline).await?;
        if answers.len() != pools.len() {
            let message = format!("redis returned the measurements of {} pools, not of {}", answers.len(), pools.len());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let measured = |(pool, found): (&PoolName, [Option<String>; 4])| {
            measured(pool, &found).unwrap_or_else(|error| {
                // One unreadable pool must not hide the others from the scaler.
                tracing::warn!(%pool, %error, "cannot read the measurements of a pool");
                None
            })
        };
        Ok(pools.iter().zip(answers).map(measured).collect())
    }
}

/// The measurements in the fields [`MEASURED`]. `None` where one of the fields is missing.
fn measured(pool: &PoolName, found: &[Option<String>; 4]) -> Result<Option<Measured>> {
    fn number<T: FromStr>(pool: &PoolName, name: &str, text: &str) -> Result<T> {
        let corrupt = |_| Error::new(ErrorKind::Corrupt, format!("redis holds {text:?} as {name} of pool {pool}"));
        text.parse().map_err(corrupt)
    }
    let [Some(base), Some(item), Some(limit), Some(cold_start)] = found else { return Ok(None) };
    let [base_name, item_name, limit_name, cold_start_name] = MEASURED;
    let measured = Measured {
        batch_base_seconds: number(pool, base_name, base)?,
        batch_item_seconds: number(pool, item_name, item)?,
        batch_limit_items: number(pool, limit_name, limit)?,
        cold_start_seconds: number(pool, cold_start_name, cold_start)?,
    };
    Ok(measured.if_sound())
}

fn record(id: &str, pool: &PoolName, fields: &HashMap<String, String>) -> Result<WorkerRecord> {
    let text = |name: &str| fields.get(name).map_or("", String::as_str);
    let corrupt = |name: &str| {
        let message = format!("redis holds {:?} as {name} of worker {id:?}", text(name));
        Error::new(ErrorKind::Corrupt, message)
    };
    fn number<T: FromStr>(text: &str) -> Option<T> {
        text.parse().ok()
    }
    let started_at = number(text("started_at")).and_then(|started| Timestamp::from_millisecond(started).ok());
    /// A worker of another version may not send a field. It is 0 then.
    fn or_zero<T: FromStr + Default>(text: &str) -> Option<T> {
        if text.is_empty() { Some(T::default()) } else { number(text) }
    }
    let measured = |name: &str| or_zero(text(name)).ok_or_else(|| corrupt(name));
    let batch_limit_items = or_zero(text("batch_limit_items"));
    Ok(WorkerRecord {
        id: WorkerId::new(id),
        pool: pool.clone(),
        state: WorkerState::of_name(text("state")).ok_or_else(|| corrupt("state"))?,
        started_at: started_at.ok_or_else(|| corrupt("started_at"))?,
        batch_items: measured("batch_items")?,
        batch_seconds: measured("batch_seconds")?,
        batch_base_seconds: measured("batch_base_seconds")?,
        batch_item_seconds: measured("batch_item_seconds")?,
        batch_limit_items: batch_limit_items.ok_or_else(|| corrupt("batch_limit_items"))?,
        cold_start_seconds: measured("cold_start_seconds")?,
    })
}

#[cfg(test)]
mod tests {
    use redis::cmd;

    use super::*;
    use crate::fixture::RedisFixture;
    use queue_contract::Fixture;

    fn worker(fixture: &RedisFixture, id: &str, pool: &PoolName) -> WorkerRecord {
        WorkerRecord {
            id: WorkerId::new(id),
            pool: pool.clone(),
            state: WorkerState::Busy,
            started_at: fixture.now(),
            batch_items: 8.0,
            batch_seconds: 0.5,
            batch_base_seconds: 0.25,
            batch_item_seconds: 0.03125,
            batch_limit_items: 16,
            cold_start_seconds: 3.0,
        }
    }

    #[tokio::test]
    async fn a_field_that_a_worker_does_not_send_is_0_and_one_that_is_no_number_hides_only_that_worker() {
        let fixture = RedisFixture::start();
        let (redis, pool) = (fixture.redis(), "pool".parse::<PoolName>().unwrap());
        let roster = RedisRoster::new(redis.clone());
        let worker = worker(&fixture, "old", &pool);
        roster.heartbeat(&worker, Duration::from_secs(60)).await.unwrap();
        let key = redis.key("worker:old");
        let mut delete = cmd("HDEL");
        delete.arg(&key).arg(&["batch_base_seconds", "batch_item_seconds", "batch_limit_items"]);
        redis.run::<()>("delete", &delete).await.unwrap();
        let expected =
            WorkerRecord { batch_base_seconds: 0.0, batch_item_seconds: 0.0, batch_limit_items: 0, ..worker.clone() };
        assert_eq!(roster.workers(std::slice::from_ref(&pool)).await.unwrap(), [[expected]]);

        redis.run::<()>("overwrite", cmd("HSET").arg(&key).arg("batch_limit_items").arg("many")).await.unwrap();
        let valid = WorkerRecord { id: WorkerId::new("valid"), ..worker };
        roster.heartbeat(&valid, Duration::from_secs(60)).await.unwrap();
        assert_eq!(roster.workers(std::slice::from_ref(&pool)).await.unwrap(), [[valid]]);
    }

    #[tokio::test]
    async fn measurements_that_are_not_valid_are_unknown_and_hide_no_other_pool() {
        let fixture = RedisFixture::start();
        let (redis, pools) = (fixture.redis(), ["bad", "good"].map(|pool| pool.parse::<PoolName>().unwrap()));
        let roster = RedisRoster::new(redis.clone());
        for pool in &pools {
            roster.heartbeat(&worker(&fixture, "of", pool), Duration::from_secs(60)).await.unwrap();
        }
        let measured = worker(&fixture, "of", &pools[1]).measured();
        assert_eq!(roster.measured(&pools).await.unwrap(), [measured, measured]);
        for invalid in ["many", "0", "-1"] {
            let overwrite = cmd("HSET").arg(redis.key("measured:bad")).arg("batch_limit_items").arg(invalid).to_owned();
            redis.run::<()>("overwrite", &overwrite).await.unwrap();
            assert_eq!(roster.measured(&pools).await.unwrap(), [None, measured]);
        }
    }
}
