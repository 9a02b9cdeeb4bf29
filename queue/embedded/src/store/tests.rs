//! Tests of the file itself: groups of writes, full disks, files of other versions and programs.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc;

use futures::future::join_all;
use futures::poll;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use queue::JobCounts;

fn open(folder: &Path, max_size_bytes: Option<u64>) -> Result<Store> {
    Store::open(&StoreOptions { max_size_bytes, ..StoreOptions::new(folder) }, Clock::default())
}

fn start() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), None).unwrap();
    (folder, store)
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Writes a row into the table `endings`, and then fails if `fails` is set.
fn insert<'a>(store: &'a Store, id: &str, fails: bool) -> Answer<'a> {
    let id = id.to_owned();
    Box::pin(store.write(Durability::Power, move |write| {
        write.prepare("INSERT INTO endings (id) VALUES (?1)")?.execute([&id]).map_err(sqlite("insert"))?;
        if fails { Err(Error::new(ErrorKind::Conflict, "it should fail")) } else { Ok(()) }
    }))
}

async fn ids(store: &Store) -> Vec<String> {
    let read = |file: &Connection| {
        let mut select = file.prepare("SELECT id FROM endings ORDER BY ending").map_err(sqlite("read"))?;
        let rows = select.query_map([], |row| row.get(0)).map_err(sqlite("read"))?;
        rows.collect::<rusqlite::Result<_>>().map_err(sqlite("read"))
    };
    store.read(read).await.unwrap()
}

/// Runs writes that all wait while the writer is busy, so that they form one group. The answers are in order.
async fn in_one_group<'a>(store: &'a Store, mut writes: Vec<Answer<'a>>) -> Vec<Result<()>> {
    let (started, is_started) = mpsc::channel();
    let (release, is_released) = mpsc::channel::<()>();
    let mut busy = Box::pin(store.write(Durability::Process, move |_| {
        started.send(()).unwrap();
        is_released.recv().unwrap();
        Ok(())
    }));
    assert!(poll!(&mut busy).is_pending());
    is_started.recv().unwrap();
    for write in &mut writes {
        assert!(poll!(write).is_pending());
    }
    release.send(()).unwrap();
    busy.await.unwrap();
    join_all(writes).await
}

/// The number of transactions in the write-ahead log. The last frame of each holds the number of pages of the file, which
/// is 0 in other frames (https://www.sqlite.org/fileformat2.html#walformat).
fn commits(folder: &Path) -> usize {
    let log = std::fs::read(folder.join("millrace.db-wal")).unwrap();
    let page_bytes = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    log[32..].chunks_exact(24 + page_bytes).filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn many_writes_share_a_commit() {
    let (folder, store) = start();
    insert(&store, "first", false).await.unwrap();
    let before = commits(folder.path());
    let names: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let answers = in_one_group(&store, names.iter().map(|name| insert(&store, name, false)).collect()).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(ids(&store).await.len(), 1_001);
    assert_eq!(commits(folder.path()) - before, 2, "a thousand writes are two groups of at most 512");
}

#[tokio::test]
async fn a_failing_write_does_not_undo_its_group() {
    let (folder, store) = start();
    insert(&store, "first", false).await.unwrap();
    let before = commits(folder.path());
    let writes = [("a", false), ("b", true), ("c", false)].map(|(id, fails)| insert(&store, id, fails));
    let answers = in_one_group(&store, writes.into()).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(ids(&store).await, ["first", "a", "c"]);
    assert_eq!(commits(folder.path()) - before, 1);
}

#[tokio::test]
async fn a_write_is_made_even_if_its_future_is_dropped() {
    let (_folder, store) = start();
    let mut write = insert(&store, "a", false);
    assert!(poll!(&mut write).is_pending());
    drop(write);
    insert(&store, "b", false).await.unwrap();
    assert_eq!(ids(&store).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_handles_write_to_one_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let writing = (0..4).map(|handle| {
        let store = open(folder.path(), None).unwrap();
        tokio::spawn(async move {
            for number in 0..50 {
                insert(&store, &format!("{handle}-{number}"), false).await.unwrap();
            }
        })
    });
    for written in join_all(writing).await {
        written.unwrap();
    }
    let mut found = ids(&open(folder.path(), None).unwrap()).await;
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 200);
}

/// Otherwise a write that frees space would always be undone together with writes that need space.
#[tokio::test]
async fn after_a_full_disk_a_write_that_frees_space_is_not_undone_with_one_that_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Some(256 * 1024)).unwrap();
    let fill = || -> Answer<'_> {
        Box::pin(store.write(Durability::Power, |write| {
            let mut insert = write.prepare("INSERT INTO outputs (media_type, body) VALUES ('x', zeroblob(50000))")?;
            insert.execute([]).map(drop).map_err(sqlite("insert"))
        }))
    };
    let free_space = || -> Answer<'_> {
        Box::pin(store.write(Durability::Power, |write| {
            let mut delete = write.prepare("DELETE FROM outputs WHERE job = (SELECT min(job) FROM outputs)")?;
            delete.execute([]).map(drop).map_err(sqlite("delete"))
        }))
    };
    let full = loop {
        if let Err(error) = fill().await {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::Full);
    for _ in 0..3 {
        let answers = in_one_group(&store, vec![free_space(), fill(), fill()]).await;
        assert!(answers[0].is_ok() && answers[1].is_ok(), "{answers:?}");
        assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::Full);
    }
}

#[test]
fn a_file_from_a_newer_version_is_rejected_naming_file_and_versions() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), None).unwrap());
    let file = folder.path().join("millrace.db");
    let newer = schema::VERSION + 1;
    Connection::open(&file).unwrap().pragma_update(None, "user_version", newer).unwrap();
    let error = open(folder.path(), None).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    for part in [file.display().to_string(), format!("schema {newer}"), format!("knows {}", schema::VERSION)] {
        assert!(text.contains(&part), "{text}");
    }
}

#[test]
fn a_file_of_the_first_version_keeps_its_jobs_and_gets_the_tables_of_this_one() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = old.path().join("millrace.db");
    let first = Connection::open(&file).unwrap();
    first.execute_batch(schema::TABLES).unwrap();
    first
        .execute_batch(
            "PRAGMA application_id = 1298754668; PRAGMA user_version = 1;
             INSERT INTO jobs (id, pool, class, state, max_attempts, created_at, retention)
             VALUES ('old', 'pool', 1, 7, 3, 1, 1)",
        )
        .unwrap();
    drop(first);
    for folder in [&old, &new] {
        // The second opening has nothing to convert.
        drop(open(folder.path(), None).unwrap());
        drop(open(folder.path(), None).unwrap());
    }
    let schema = |folder: &TempDir| -> Vec<(String, String)> {
        let file = Connection::open(folder.path().join("millrace.db")).unwrap();
        let mut select = file.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(schema(&old), schema(&new));
    let file = Connection::open(&file).unwrap();
    let version: i64 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, schema::VERSION);
    let id: String = file.query_row("SELECT id FROM jobs WHERE state IN (4, 7)", [], |row| row.get(0)).unwrap();
    assert_eq!(id, "old");
}

#[test]
fn a_file_of_the_second_version_keeps_its_workers_without_a_batch_time_model() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millrace.db");
    let second = Connection::open(&file).unwrap();
    second.execute_batch(schema::TABLES).unwrap();
    second.execute_batch(schema::TO_2).unwrap();
    second
        .execute_batch(
            "PRAGMA application_id = 1298754668; PRAGMA user_version = 2;
             INSERT INTO workers VALUES ('old', 'pool', 'idle', 1, 1, 8.0, 0.5, 3.0)",
        )
        .unwrap();
    drop(second);
    drop(open(folder.path(), None).unwrap());
    let select = "SELECT id, batch_seconds, cold_start_seconds, batch_base_seconds, batch_item_seconds, \
                  batch_limit_items FROM workers";
    let read =
        |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?));
    let worker: (String, f64, f64, f64, f64, u32) =
        Connection::open(&file).unwrap().query_row(select, [], read).unwrap();
    assert_eq!(worker, ("old".to_owned(), 0.5, 3.0, 0.0, 0.0, 0));
}

#[test]
fn a_file_of_the_third_version_counts_its_jobs_and_their_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millrace.db");
    let third = Connection::open(&file).unwrap();
    third.execute_batch(schema::TABLES).unwrap();
    third.execute_batch(schema::TO_2).unwrap();
    third.execute_batch(schema::TO_3).unwrap();
    third.execute_batch("PRAGMA application_id = 1298754668; PRAGMA user_version = 3").unwrap();
    let add = |file: &Connection, id: &str, pool: &str, state: i64, fence: i64, due_at: Option<i64>| {
        let sql = "INSERT INTO jobs (id, pool, class, state, max_attempts, created_at, retention, fence, due_at)
                   VALUES (?1, ?2, 1, ?3, 3, 1, 1, ?4, ?5)";
        file.execute(sql, rusqlite::params![id, pool, state, fence, due_at]).unwrap();
    };
    for (number, (state, fence, due_at)) in
        [(0, 0, None), (0, 0, Some(1)), (0, 1, Some(1)), (1, 1, Some(1)), (2, 1, Some(1)), (3, 1, None), (7, 1, None)]
            .into_iter()
            .enumerate()
    {
        add(&third, &format!("job-{number}"), "first", state, fence, due_at);
    }
    add(&third, "other", "second", 1, 1, Some(1));
    drop(third);
    drop(open(folder.path(), None).unwrap());
    let file = Connection::open(&file).unwrap();
    let counts = |pool: &str| -> [i64; 5] {
        let sql = "SELECT queued, leased, retry, given_out, ended FROM pools WHERE pool = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]);
        file.query_row(sql, [pool], read).unwrap()
    };
    assert_eq!(counts("first"), [3, 1, 1, 1, 2]);
    assert_eq!(counts("second"), [0, 1, 0, 0, 0]);
    file.execute("UPDATE jobs SET state = 4 WHERE pool = 'second'", []).unwrap();
    file.execute("DELETE FROM jobs", []).unwrap();
    assert_eq!(counts("first"), [0, 0, 0, 0, 2]);
    assert_eq!(counts("second"), [0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn a_file_of_the_fourth_version_keeps_its_counts_and_has_no_measurements() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millrace.db");
    let fourth = Connection::open(&file).unwrap();
    for step in [schema::TABLES, schema::TO_2, schema::TO_3, schema::TO_4] {
        fourth.execute_batch(step).unwrap();
    }
    fourth
        .execute_batch(
            "PRAGMA application_id = 1298754668; PRAGMA user_version = 4;
             INSERT INTO pools (pool, ended) VALUES ('pool', 7)",
        )
        .unwrap();
    drop(fourth);
    let backend = crate::backend(&open(folder.path(), None).unwrap());
    let pool = ["pool".parse().unwrap()];
    assert_eq!(backend.ledger.counts(&pool).await.unwrap(), [JobCounts { ended: 7, ..JobCounts::default() }]);
    assert_eq!(backend.roster.measured(&pool).await.unwrap(), [None]);
}

#[tokio::test]
async fn a_file_of_the_fifth_version_keeps_its_counts_and_its_published_jobs_become_due() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millrace.db");
    let fifth = Connection::open(&file).unwrap();
    for step in [schema::TABLES, schema::TO_2, schema::TO_3, schema::TO_4, schema::TO_5] {
        fifth.execute_batch(step).unwrap();
    }
    fifth
        .execute_batch(
            "PRAGMA application_id = 1298754668; PRAGMA user_version = 5;
             INSERT INTO jobs (id, pool, class, state, max_attempts, created_at, retention, fence, due_at, deadline_at)
             VALUES ('published', 'pool', 1, 0, 3, 1, 1, 0, NULL, NULL),
                 ('again', 'pool', 1, 0, 3, 1, 1, 2, NULL, 9),
                 ('given-out', 'pool', 1, 0, 3, 1, 1, 1, 5, NULL),
                 ('leased', 'pool', 1, 1, 3, 1, 1, 1, 5, NULL)",
        )
        .unwrap();
    drop(fifth);
    let backend = crate::backend(&open(folder.path(), None).unwrap());
    let counts = backend.ledger.counts(&["pool".parse().unwrap()]).await.unwrap();
    assert_eq!(counts, [JobCounts { queued: 2, leased: 1, retry: 1, ended: 0 }]);
    let file = Connection::open(&file).unwrap();
    let mut select = file.prepare("SELECT due_at, lease FROM jobs ORDER BY job").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(i64, i64)> = rows.collect::<rusqlite::Result<_>>().unwrap();
    assert_eq!(rows, [(21_600_001, 30_000), (9, 30_000), (5, 30_000), (5, 30_000)]);
}

#[tokio::test]
async fn a_file_of_the_seventh_version_gets_counts_of_its_messages() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millrace.db");
    let seventh = Connection::open(&file).unwrap();
    use schema::{TABLES, TO_2, TO_3, TO_4, TO_5, TO_6, TO_7};
    for step in [TABLES, TO_2, TO_3, TO_4, TO_5, TO_6, TO_7] {
        seventh.execute_batch(step).unwrap();
    }
    let add = |pool: &str, class: i64, consumer: Option<i64>| {
        let sql = "INSERT INTO messages (pool, class, consumer, published_at) VALUES (?1, ?2, ?3, 1000)";
        seventh.execute(sql, (pool, class, consumer)).unwrap();
    };
    for (class, consumer) in [(0, None), (1, None), (1, None), (2, None), (1, Some(7)), (2, Some(7))] {
        add("first", class, consumer);
    }
    add("second", 2, Some(8));
    seventh
        .execute_batch(
            "PRAGMA application_id = 1298754668; PRAGMA user_version = 7;
             INSERT INTO jobs (id, pool, class, state, max_attempts, created_at, retention)
             VALUES ('old', 'first', 1, 0, 3, 1, 1)",
        )
        .unwrap();
    drop(seventh);
    let backend = crate::backend(&open(folder.path(), None).unwrap());
    let gauge = backend.broker.gauge().await.unwrap();
    let pools = ["first", "second", "third"].map(|pool| pool.parse().unwrap());
    let depths = async || {
        let depths = gauge.depths(&pools).await.into_iter().map(Result::unwrap);
        depths.map(|depth| (depth.waiting_by_class, depth.in_flight.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(depths().await, [([1, 2, 1], 2), ([0, 0, 0], 1), ([0, 0, 0], 0)]);
    let file = Connection::open(&file).unwrap();
    file.execute("UPDATE messages SET consumer = 9 WHERE pool = 'first' AND class = 1", []).unwrap();
    file.execute("UPDATE messages SET consumer = NULL WHERE pool = 'first' AND class = 2", []).unwrap();
    file.execute("DELETE FROM messages WHERE pool = 'second' OR class = 0", []).unwrap();
    assert_eq!(depths().await, [([0, 0, 2], 3), ([0, 0, 0], 0), ([0, 0, 0], 0)]);
    file.execute("DELETE FROM messages", []).unwrap();
    assert_eq!(depths().await, [([0, 0, 0], 0); 3]);
}

#[test]
fn a_check_before_the_first_use_creates_and_converts_nothing() {
    let folder = tempfile::Builder::new().prefix("50%?#").tempdir().unwrap();
    let missing = folder.path().join("deep").join("data");
    let risks = Store::risks_before_use(&missing).unwrap().unwrap();
    assert_eq!(risks[0].found, "nothing there yet");
    assert!(!folder.path().join("deep").exists());
    let file = folder.path().join("millrace.db");
    let first = Connection::open(&file).unwrap();
    first.pragma_update(None, "journal_mode", "WAL").unwrap();
    first.execute_batch(schema::TABLES).unwrap();
    first.execute_batch("PRAGMA application_id = 1298754668; PRAGMA user_version = 1").unwrap();
    drop(first);
    let before = std::fs::read(&file).unwrap();
    let risks = Store::risks_before_use(folder.path()).unwrap().unwrap();
    assert_eq!(risks[0].found, "schema 1");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["millrace.db"]);
    let _store = open(folder.path(), None).unwrap();
    assert_eq!(Store::risks_before_use(folder.path()).unwrap(), None);
}

#[test]
fn the_database_of_another_program_is_rejected_and_stays_unchanged() {
    for statement in ["PRAGMA application_id = 1196444487", "CREATE TABLE songs (title)", "PRAGMA user_version = 1"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("millrace.db");
        let other = Connection::open(&file).unwrap();
        other.execute_batch("CREATE TABLE users (name)").unwrap();
        other.execute_batch(statement).unwrap();
        drop(other);
        let before = std::fs::read(&file).unwrap();
        let error = open(folder.path(), None).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
        assert!(error.to_string().contains("another program"), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }
}

#[test]
fn a_file_that_is_no_database_is_rejected_and_stays_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millrace.db");
    let text = "these are not the pages you are looking for\n".repeat(200);
    std::fs::write(&file, &text).unwrap();
    let error = open(folder.path(), None).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn a_folder_that_cannot_be_created_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&file.join("data"), None).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&file.join("data").display().to_string()), "{error}");
}
