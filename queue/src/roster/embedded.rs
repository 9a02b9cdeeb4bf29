//! The roster in the data file.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Row, params};

use super::{Roster, WorkerId, WorkerRecord, WorkerState};
use crate::store::{Durability, Store, corrupt, sqlite};
use crate::{PoolName, Result};

pub(crate) struct EmbeddedRoster {
    store: Store,
}

impl EmbeddedRoster {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Roster for EmbeddedRoster {
    async fn beat(&self, worker: &WorkerRecord, alive: Duration) -> Result<()> {
        let worker = worker.clone();
        self.store
            .write(Durability::Process, move |write| {
                let beating = sqlite("beat");
                let now = write.now_milliseconds();
                write.prepare("DELETE FROM workers WHERE alive_until < ?1")?.execute([now]).map_err(&beating)?;
                let mut beat = write.prepare(
                    "INSERT OR REPLACE INTO workers (id, pool, state, alive_until, started_at, batch_items, \
                     batch_seconds, batch_base_seconds, batch_item_seconds, batch_limit_items, cold_start_seconds) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                )?;
                let row = params![
                    worker.id.as_str(),
                    worker.pool.as_str(),
                    worker.state.as_str(),
                    write.milliseconds_after(alive),
                    worker.started_at.as_millisecond(),
                    worker.batch_items,
                    worker.batch_seconds,
                    worker.batch_base_seconds,
                    worker.batch_item_seconds,
                    worker.batch_limit_items,
                    worker.cold_start_seconds,
                ];
                beat.execute(row).map(drop).map_err(&beating)
            })
            .await
    }

    async fn leave(&self, id: &WorkerId) -> Result<()> {
        let id = id.clone();
        self.store
            .write(Durability::Process, move |write| {
                let mut delete = write.prepare("DELETE FROM workers WHERE id = ?1")?;
                delete.execute([id.as_str()]).map(drop).map_err(sqlite("leave"))
            })
            .await
    }

    async fn workers(&self, pools: &[PoolName]) -> Result<Vec<Vec<WorkerRecord>>> {
        let (pools, now) = (pools.to_vec(), self.store.clock().now_milliseconds());
        self.store
            .read(move |file| {
                let reading = sqlite("read the roster");
                let mut select = file
                    .prepare_cached(
                        "SELECT pool, id, state, started_at, batch_items, batch_seconds, batch_base_seconds, \
                         batch_item_seconds, batch_limit_items, cold_start_seconds FROM workers \
                         WHERE alive_until >= ?1 AND pool IN (SELECT value FROM json_each(?2)) ORDER BY id",
                    )
                    .map_err(&reading)?;
                let names = serde_json::json!(pools.iter().map(PoolName::as_str).collect::<Vec<_>>()).to_string();
                let mut rows = select.query(params![now, names]).map_err(&reading)?;
                let mut found: HashMap<String, Vec<WorkerRecord>> = HashMap::new();
                while let Some(row) = rows.next().map_err(&reading)? {
                    // One that cannot be read must not keep the scaler from all others.
                    match record(row) {
                        Ok(worker) => found.entry(worker.pool.to_string()).or_default().push(worker),
                        Err(error) => tracing::warn!(%error, "a worker cannot be read and does not count"),
                    }
                }
                Ok(pools.iter().map(|pool| found.get(pool.as_str()).cloned().unwrap_or_default()).collect())
            })
            .await
    }
}

fn record(row: &Row<'_>) -> Result<WorkerRecord> {
    let reading = sqlite("read the roster");
    let pool: String = row.get(0).map_err(&reading)?;
    let state: String = row.get(2).map_err(&reading)?;
    let started_at: i64 = row.get(3).map_err(&reading)?;
    Ok(WorkerRecord {
        id: WorkerId::new(row.get::<_, String>(1).map_err(&reading)?),
        pool: pool.parse().map_err(|_| corrupt("a pool", &pool))?,
        state: WorkerState::of_name(&state).ok_or_else(|| corrupt("a worker's state", &state))?,
        started_at: Timestamp::from_millisecond(started_at).map_err(|_| corrupt("a time", started_at))?,
        batch_items: row.get(4).map_err(&reading)?,
        batch_seconds: row.get(5).map_err(&reading)?,
        batch_base_seconds: row.get(6).map_err(&reading)?,
        batch_item_seconds: row.get(7).map_err(&reading)?,
        batch_limit_items: row.get(8).map_err(&reading)?,
        cold_start_seconds: row.get(9).map_err(&reading)?,
    })
}
