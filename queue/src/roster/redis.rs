//! The workers alive, in Redis: a hash per worker, and per pool a sorted set by until when each counts as alive.
//!
//! A worker that vanished is forgotten with the next beat in its pool; readings pass it over until then.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use redis::Script;

use super::{Roster, WorkerId, WorkerRecord, WorkerState};
use crate::clock::milliseconds_of;
use crate::redis::Redis;
use crate::{Error, ErrorKind, PoolName, Result};

static BEAT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/beat.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/leave.lua")));
static WORKERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/workers.lua")));

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

    fn prefix(&self) -> String {
        self.redis.key("")
    }

    fn offset(&self) -> String {
        self.redis.clock().offset_milliseconds().to_string()
    }
}

#[async_trait]
impl Roster for RedisRoster {
    async fn beat(&self, worker: &WorkerRecord, alive: Duration) -> Result<()> {
        let keys = [self.worker_key(&worker.id), self.pool_key(&worker.pool)];
        let (id, pool) = (worker.id.to_string(), worker.pool.to_string());
        let mut arguments = vec![self.prefix(), self.offset(), id, pool, milliseconds_of(alive).to_string()];
        let fields = [
            ("state", worker.state.as_str().to_owned()),
            ("started_at", worker.started_at.as_millisecond().to_string()),
            // Rust writes a number so that reading it gives the very same one.
            ("batch_items", worker.batch_items.to_string()),
            ("batch_seconds", worker.batch_seconds.to_string()),
            ("cold_start_seconds", worker.cold_start_seconds.to_string()),
        ];
        arguments.extend(fields.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        let arguments = arguments.into_iter().map(String::into_bytes).collect();
        self.redis.script("beat", &BEAT, &keys, arguments).await
    }

    async fn leave(&self, id: &WorkerId) -> Result<()> {
        let arguments = [self.prefix(), id.to_string()].map(String::into_bytes).to_vec();
        self.redis.script("leave", &LEAVE, &[self.worker_key(id)], arguments).await
    }

    async fn workers(&self, pool: &PoolName) -> Result<Vec<WorkerRecord>> {
        let arguments = [self.prefix(), self.offset()].map(String::into_bytes).to_vec();
        let found: Vec<(String, HashMap<String, String>)> =
            self.redis.script("read the roster", &WORKERS, &[self.pool_key(pool)], arguments).await?;
        let mut workers = found.iter().map(|(id, fields)| record(id, pool, fields)).collect::<Result<Vec<_>>>()?;
        workers.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(workers)
    }
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
    let measured = |name: &str| number(text(name)).ok_or_else(|| corrupt(name));
    Ok(WorkerRecord {
        id: WorkerId::new(id),
        pool: pool.clone(),
        state: WorkerState::of_name(text("state")).ok_or_else(|| corrupt("state"))?,
        started_at: started_at.ok_or_else(|| corrupt("started_at"))?,
        batch_items: measured("batch_items")?,
        batch_seconds: measured("batch_seconds")?,
        cold_start_seconds: measured("cold_start_seconds")?,
    })
}
