//! Which pools may have got work.

use std::collections::{BTreeSet, VecDeque};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rusqlite::Connection;

use crate::store::{Bell, Listener, Store, Write, corrupt, sqlite};
use queue::{PoolName, Result};

/// Notes that these pools may have got work, and tells who listens once it is committed. The ledger knows a job of each.
pub(super) fn note<'a>(write: &mut Write<'_>, pools: impl Iterator<Item = &'a str>) -> Result<()> {
    let pools: BTreeSet<&str> = pools.collect();
    if pools.is_empty() {
        return Ok(());
    }
    let mut update =
        write.prepare("UPDATE pools SET arrival = 1 + (SELECT max(arrival) FROM pools) WHERE pool = ?1")?;
    for pool in pools {
        update.execute([pool]).map_err(sqlite("note an arrival"))?;
    }
    write.ring(Bell::Arrived);
    Ok(())
}

/// Follows what any process notes in the file, from when this returns.
pub(super) async fn follow(store: &Store) -> Result<BoxStream<'static, Result<PoolName>>> {
    let bell = store.listen(Bell::Arrived);
    let last = store.read(newest).await?;
    let following = Following { store: store.clone(), bell, last, found: VecDeque::new() };
    Ok(stream::unfold(following, async |mut following| Some((following.next().await, following))).boxed())
}

struct Following {
    store: Store,
    bell: Listener,
    /// The number of the last arrival that was looked at.
    last: i64,
    /// Still to be told.
    found: VecDeque<PoolName>,
}

impl Following {
    async fn next(&mut self) -> Result<PoolName> {
        loop {
            if let Some(pool) = self.found.pop_front() {
                return Ok(pool);
            }
            self.bell.rung().await;
            let last = self.last;
            (self.last, self.found) = self.store.read(move |file| since(file, last)).await?;
        }
    }
}

fn newest(file: &Connection) -> Result<i64> {
    let reading = sqlite("follow the arrivals");
    let mut newest = file.prepare_cached("SELECT coalesce(max(arrival), 0) FROM pools").map_err(&reading)?;
    newest.query_row([], |row| row.get(0)).map_err(&reading)
}

/// The number of the newest arrival, and the pools of those after `last`.
fn since(file: &Connection, last: i64) -> Result<(i64, VecDeque<PoolName>)> {
    let reading = sqlite("follow the arrivals");
    let sql = "SELECT pool, arrival FROM pools WHERE arrival > ?1 ORDER BY arrival";
    let mut select = file.prepare_cached(sql).map_err(&reading)?;
    let mut rows = select.query([last]).map_err(&reading)?;
    let (mut newest, mut pools) = (last, VecDeque::new());
    while let Some(row) = rows.next().map_err(&reading)? {
        let pool: String = row.get(0).map_err(&reading)?;
        pools.push_back(pool.parse().map_err(|_| corrupt("a pool", &pool))?);
        newest = row.get(1).map_err(&reading)?;
    }
    Ok((newest, pools))
}
