//! Broker, ledger and roster in Redis.

mod broker;
mod connection;
#[cfg(test)]
mod fixture;
mod ledger;
#[cfg(test)]
mod ledger_in_redis;
mod roster;

use std::sync::Arc;
use std::time::Duration;

use queue::{Backend, Clock, Result};

pub use connection::RedisUrl;

use broker::RedisBroker;
use connection::Redis;
use ledger::RedisLedger;
use roster::RedisRoster;

/// Opens all three roles on the server that `url` names. The first call connects. Leases, deadlines and retries use the
/// server's time, which `clock` shifts in tests. The ledger keeps the dead and failed jobs that this process ends for at
/// least `dead_retention`. Must be called within a tokio runtime.
pub fn open(url: &RedisUrl, clock: Clock, dead_retention: Duration) -> Result<Backend> {
    Ok(backend(&Redis::open(url, clock)?, dead_retention))
}

fn backend(redis: &Redis, dead_retention: Duration) -> Backend {
    Backend {
        broker: Arc::new(RedisBroker::new(redis.clone())),
        ledger: Arc::new(RedisLedger::new(redis.clone(), dead_retention)),
        roster: Arc::new(RedisRoster::new(redis.clone())),
    }
}
