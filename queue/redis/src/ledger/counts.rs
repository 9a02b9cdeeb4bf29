//! Reads the job counts of pools. The scripts update them with every change.

use futures::future::try_join_all;

use super::scripts::same_length;
use crate::connection::Redis;
use queue::ledger::JobCounts;
use queue::{PoolName, Result};

/// The most pools of one pipeline. All pipelines are sent at once.
const CHUNK_POOLS: usize = 500;

/// The counts of pools, in order.
pub(super) async fn counts(redis: &Redis, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
    Ok(try_join_all(pools.chunks(CHUNK_POOLS).map(|chunk| counts_of(redis, chunk))).await?.concat())
}

async fn counts_of(redis: &Redis, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
    let mut pipeline = redis::pipe();
    for pool in pools {
        let key = redis.key(&format!("open:{pool}"));
        pipeline.cmd("HMGET").arg(key).arg(&["queued", "leased", "retry", "ended"]);
    }
    let answers: Vec<[Option<i64>; 4]> = redis.pipeline("count jobs", &pipeline).await?;
    same_length(pools.len(), &answers)?;
    let counts = |answer: [Option<i64>; 4]| {
        // A count that was never changed has no field. A count below 0, after a key was deleted by hand, must not fail the
        // reading of the other pools.
        let count = |count: Option<i64>| u64::try_from(count.unwrap_or_default()).unwrap_or_default();
        let [queued, leased, retry, ended] = answer.map(count);
        JobCounts { queued, leased, retry, ended }
    };
    Ok(answers.into_iter().map(counts).collect())
}
