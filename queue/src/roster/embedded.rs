//! The roster in the data file.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::params;

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
                     batch_seconds, cold_start_seconds) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?;
                let row = params![
                    worker.id.as_str(),
                    worker.pool.as_str(),
                    worker.state.as_str(),
                    write.milliseconds_after(alive),
                    worker.started_at.as_millisecond(),
                    worker.batch_items,
                    worker.batch_seconds,
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

    async fn workers(&self, pool: &PoolName) -> Result<Vec<WorkerRecord>> {
        let (pool, now) = (pool.clone(), self.store.clock().now_milliseconds());
        self.store
            .read(move |file| {
                let reading = sqlite("read the roster");
                let mut select = file
                    .prepare_cached(
                        "SELECT id, state, started_at, batch_items, batch_seconds, cold_start_seconds FROM workers \
                         WHERE pool = ?1 AND alive_until >= ?2 ORDER BY id",
                    )
                    .map_err(&reading)?;
                let mut rows = select.query(params![pool.as_str(), now]).map_err(&reading)?;
                let mut workers = Vec::new();
                while let Some(row) = rows.next().map_err(&reading)? {
                    let state: String = row.get(1).map_err(&reading)?;
                    let started_at: i64 = row.get(2).map_err(&reading)?;
                    workers.push(WorkerRecord {
                        id: WorkerId::new(row.get::<_, String>(0).map_err(&reading)?),
                        pool: pool.clone(),
                        state: WorkerState::of_name(&state).ok_or_else(|| corrupt("a worker's state", &state))?,
                        started_at: Timestamp::from_millisecond(started_at)
                            .map_err(|_| corrupt("a time", started_at))?,
                        batch_items: row.get(3).map_err(&reading)?,
                        batch_seconds: row.get(4).map_err(&reading)?,
                        cold_start_seconds: row.get(5).map_err(&reading)?,
                    });
                }
                Ok(workers)
            })
            .await
    }
}
