//! Reads the job counts of pools. Triggers in the file update them with every change.

use rusqlite::{Connection, OptionalExtension};

use crate::store::sqlite;
use queue::ledger::JobCounts;
use queue::{PoolName, Result};

/// The counts of pools, in order, in one snapshot.
pub(super) fn counts(file: &Connection, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
    let counting = sqlite("count jobs");
    let mut select = file
        .prepare_cached("SELECT queued - given_out, leased, retry + given_out, ended FROM pools WHERE pool = ?1")
        .map_err(&counting)?;
    let mut counts_of = |pool: &PoolName| {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(JobCounts { queued: row.get(0)?, leased: row.get(1)?, retry: row.get(2)?, ended: row.get(3)? })
        };
        // The ledger has no job of a pool without a row.
        let found = select.query_row([pool.as_str()], read).optional().map_err(&counting)?;
        Ok(found.unwrap_or_default())
    };
    pools.iter().map(&mut counts_of).collect()
}
