//! The pools that may have work.

use std::collections::{BTreeSet, VecDeque};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rusqlite::Connection;

use crate::store::{Change, Store, Subscription, Write, corrupt, sqlite};
use queue::{PoolName, Result};

/// Records that these pools may have work, and notifies the subscribers after the commit. Each pool has a job in the
/// ledger.
pub(super) fn record<'a>(write: &mut Write<'_>, pools: impl Iterator<Item = &'a str>) -> Result<()> {
    let pools: BTreeSet<&str> = pools.collect();
    if pools.is_empty() {
        return Ok(());
    }
    let mut update =
        write.prepare("UPDATE pools SET arrival = 1 + (SELECT max(arrival) FROM pools) WHERE pool = ?1")?;
    for pool in pools {
        update.execute([pool]).map_err(sqlite("record an arrival"))?;
    }
    write.notify(Change::Arrived);
    Ok(())
}

/// Follows the arrivals that any process records, from when this returns.
pub(super) async fn follow(store: &Store) -> Result<BoxStream<'static, Result<PoolName>>> {
    let arrived = store.subscribe(Change::Arrived);
    let last = store.read(newest).await?;
    let following = Following { store: store.clone(), arrived, last, unread: VecDeque::new() };
    Ok(stream::unfold(following, async |mut following| Some((following.next().await, following))).boxed())
}

struct Following {
    store: Store,
    arrived: Subscription,
    /// The number of the last arrival that was read.
    last: i64,
    /// The pools that the stream has not returned yet.
    unread: VecDeque<PoolName>,
}

impl Following {
    async fn next(&mut self) -> Result<PoolName> {
        loop {
            if let Some(pool) = self.unread.pop_front() {
                return Ok(pool);
            }
            self.arrived.changed().await;
            let last = self.last;
            (self.last, self.unread) = self.store.read(move |file| since(file, last)).await?;
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
