//! The room that records take in the memory of the server.

use redis::cmd;

use super::scripts::{self, Call};
use crate::connection::Redis;
use queue::{Result, Usage};

/// The number of records that are measured.
const SAMPLE: u32 = 200;

/// About the bytes of a record outside its own keys: its entry in the sorted set `over`.
const INDEX_BYTES: u64 = 128;

/// The mean size of a sample of records, and the memory that the server may use. `None`: no job has ended, or the server
/// does not report its memory.
pub(super) async fn usage(redis: &Redis) -> Result<Option<Usage>> {
    let call = Call::new(redis, &scripts::USAGE).with_number(SAMPLE);
    let (count, bytes): (u64, u64) = call.run("measure the records").await?;
    let info: String = redis.run("read INFO", cmd("INFO").arg("memory")).await?;
    let limit = |key: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse::<u64>().ok()).filter(|bytes| *bytes > 0)
    };
    let (capacity_bytes, limit) = match (limit("maxmemory"), limit("total_system_memory")) {
        (Some(max), _) => (max, "maxmemory"),
        (None, Some(machine)) => (machine, "the memory of its machine, because maxmemory is 0"),
        (None, None) => return Ok(None),
    };
    let Some(record_bytes) = bytes.checked_div(count).map(|mean| mean + INDEX_BYTES) else { return Ok(None) };
    Ok(Some(Usage {
        subject: redis.subject().await?,
        setting: "maxmemory".to_owned(),
        limit: limit.to_owned(),
        capacity_bytes,
        record_bytes,
    }))
}
