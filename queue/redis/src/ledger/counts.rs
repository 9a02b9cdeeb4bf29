//! How many jobs pools have. The scripts count them as they change them.

use futures::future::try_join_all;

use super::same_length;
use crate::connection::Redis;
use queue::ledger::JobCounts;
use queue::{PoolName, Result};

/// How many pools are asked for in one piece. All pieces are on their way at once.
const PIECE_POOLS: usize = 500;

/// The counts of pools, in order.
pub(super) async fn counts(redis: &Redis, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
    Ok(try_join_all(pools.chunks(PIECE_POOLS).map(|piece| counts_of(redis, piece))).await?.concat())
}

async fn counts_of(redis: &Redis, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
    let mut pipeline = redis::pipe();
    for pool in pools {
        let key = redis.key(&format!("open:{pool}"));
        pipeline.cmd("HMGET").arg(key).arg(&["queued", "leased", "retry", "ended"]);
    }
    let answers: Vec<[Option<u64>; 4]> = redis.pipeline("count jobs", &pipeline).await?;
    same_length(pools.len(), &answers)?;
    let counts = |answer: [Option<u64>; 4]| {
        // What was never counted is not there.
        let [queued, leased, retry, ended] = answer.map(Option::unwrap_or_default);
        JobCounts { queued, leased, retry, ended }
    };
    Ok(answers.into_iter().map(counts).collect())
}
