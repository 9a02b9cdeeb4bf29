//! The roster in the data file.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Row, params};

use crate::store::{Durability, Store, corrupt, sqlite};
use queue::{Measured, Roster, WorkerId, WorkerRecord, WorkerState};
use queue::{PoolName, Result};

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
    async fn heartbeat(&self, worker: &WorkerRecord, alive: Duration) -> Result<()> {
        let worker = worker.clone();
        self.store
            .write(Durability::Process, move |write| {
                let writing = sqlite("send a heartbeat");
                let now = write.now_milliseconds();
                write.prepare("DELETE FROM workers WHERE alive_until < ?1")?.execute([now]).map_err(&writing)?;
                let mut insert = write.prepare(
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
                insert.execute(row).map_err(&writing)?;
                let Some(measured) = worker.measured() else { return Ok(()) };
                let mut upsert = write.prepare(
                    "INSERT INTO measured (pool, batch_base_seconds, batch_item_seconds, batch_limit_items, \
                     cold_start_seconds) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (pool) DO UPDATE SET \
                     batch_base_seconds = ?2, batch_item_seconds = ?3, batch_limit_items = ?4, cold_start_seconds = ?5 \
                     WHERE (batch_base_seconds, batch_item_seconds, batch_limit_items, cold_start_seconds) \
                     <> (?2, ?3, ?4, ?5)",
                )?;
                let row = params![
                    worker.pool.as_str(),
                    measured.batch_base_seconds,
                    measured.batch_item_seconds,
                    measured.batch_limit_items,
                    measured.cold_start_seconds,
                ];
                upsert.execute(row).map(drop).map_err(&writing)
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
                let mut rows = select.query(params![now, list(&pools)]).map_err(&reading)?;
                let mut found: HashMap<String, Vec<WorkerRecord>> = HashMap::new();
                while let Some(row) = rows.next().map_err(&reading)? {
                    // One unreadable worker must not hide the others from the scaler.
                    match record(row) {
                        Ok(worker) => found.entry(worker.pool.to_string()).or_default().push(worker),
                        Err(error) => tracing::warn!(%error, "cannot read a worker; it is not counted"),
                    }
                }
                Ok(pools.iter().map(|pool| found.get(pool.as_str()).cloned().unwrap_or_default()).collect())
            })
            .await
    }

    async fn measured(&self, pools: &[PoolName]) -> Result<Vec<Option<Measured>>> {
        let pools = pools.to_vec();
        self.store
            .read(move |file| {
                let reading = sqlite("read the measurements");
                let mut select = file
                    .prepare_cached(
                        "SELECT pool, batch_base_seconds, batch_item_seconds, batch_limit_items, cold_start_seconds \
                         FROM measured WHERE pool IN (SELECT value FROM json_each(?1))",
                    )
                    .map_err(&reading)?;
                let mut rows = select.query([list(&pools)]).map_err(&reading)?;
                let mut found: HashMap<String, Measured> = HashMap::new();
                while let Some(row) = rows.next().map_err(&reading)? {
                    match measured(row) {
                        Ok((pool, measured)) => drop(found.insert(pool, measured)),
                        Err(error) => tracing::warn!(%error, "cannot read the measurements of a pool"),
                    }
                }
                Ok(pools.iter().map(|pool| found.get(pool.as_str()).and_then(|found| found.if_sound())).collect())
            })
            .await
    }
}

/// The names as a JSON array, for `json_each`.
fn list(pools: &[PoolName]) -> String {
    serde_json::json!(pools.iter().map(PoolName::as_str).collect::<Vec<_>>()).to_string()
}

fn measured(row: &Row<'_>) -> Result<(String, Measured)> {
    let reading = sqlite("read the measurements");
    let measured = Measured {
        batch_base_seconds: row.get(1).map_err(&reading)?,
        batch_item_seconds: row.get(2).map_err(&reading)?,
        batch_limit_items: row.get(3).map_err(&reading)?,
        cold_start_seconds: row.get(4).map_err(&reading)?,
    };
    Ok((row.get(0).map_err(&reading)?, measured))
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
