//! Reads the depths of pools.

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::store::{Store, sqlite};
use queue::driver::{Depth, Gauge, same_for_all};
use queue::{PoolName, Result};

pub(super) struct EmbeddedGauge {
    store: Store,
}

impl EmbeddedGauge {
    pub(super) fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }
}

#[async_trait]
impl Gauge for EmbeddedGauge {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let read = pools.to_vec();
        same_for_all(pools, self.store.read(move |file| depths(file, &read)).await)
    }
}

/// The depths of pools in one snapshot.
fn depths(file: &Connection, pools: &[PoolName]) -> Result<Vec<Result<Depth>>> {
    let reading = sqlite("read the depths");
    // Triggers count with every change, so a reading costs the same for any number of messages.
    let mut count =
        file.prepare_cached("SELECT premium, standard, batch, held FROM depths WHERE pool = ?1").map_err(&reading)?;
    let oldest = "SELECT published_at FROM messages WHERE pool = ?1 AND class = ?2 AND consumer IS NULL \
                  ORDER BY seq LIMIT 1";
    let mut oldest = file.prepare_cached(oldest).map_err(&reading)?;
    let mut depth_of = |pool: &PoolName| {
        let read = |row: &Row<'_>| {
            let waiting_by_class = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok(Depth { waiting_by_class, in_flight: Some(row.get(3)?), ..Depth::default() })
        };
        // No message of a pool without a row was ever published.
        let found = count.query_row([pool.as_str()], read).optional().map_err(&reading)?;
        let mut depth = found.unwrap_or(Depth { in_flight: Some(0), ..Depth::default() });
        for (class, _) in depth.waiting_by_class.iter().enumerate().filter(|(_, waiting)| **waiting > 0) {
            let at: Option<i64> =
                oldest.query_row((pool.as_str(), class), |row| row.get(0)).optional().map_err(&reading)?;
            let at = at.and_then(|at| Timestamp::from_millisecond(at).ok());
            depth.oldest_waiting_at = [depth.oldest_waiting_at, at].into_iter().flatten().min();
        }
        Ok(Ok(depth))
    };
    pools.iter().map(&mut depth_of).collect()
}
