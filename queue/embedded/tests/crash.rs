//! Real processes that are killed with `kill -9`: every confirmed job is there afterwards.
#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use millrace_queue_embedded::StoreOptions;
use queue::{Backend, Body, Class, Clock, Input, Job, JobId, JobState, PoolName, Publication, Settlement, Submitted};

/// The variable with the data folder of a child process. A child runs the test named `CHILD`.
const FOLDER: &str = "MILLRACE_CRASH_TEST_FOLDER";
const CHILD: &str = "confirmed_jobs_are_there_after_reopening";
const CONFIRMED: &str = "confirmed ";

fn pool() -> PoolName {
    "resnet50".parse().unwrap()
}

async fn open(folder: &Path) -> Backend {
    let options = StoreOptions::new(folder);
    millrace_queue_embedded::open(&options, Clock::default()).unwrap()
}

fn job() -> Job {
    let id = JobId::generate();
    Job {
        input: Input { media_type: "text/plain".to_owned(), body: Body::Inline(id.to_string().repeat(40).into()) },
        id,
        pool: pool(),
        class: Class::Standard,
        created_at: Timestamp::UNIX_EPOCH,
        deadline_at: None,
        max_attempts: 3,
        retention: Duration::from_secs(1),
        trace_parent: None,
        origin: None,
    }
}

/// Accepts one job as a gateway does.
async fn accept(backend: &Backend) -> JobId {
    let job = job();
    assert_eq!(backend.ledger.submit(std::slice::from_ref(&job)).await.unwrap(), [Submitted::New]);
    let producer = backend.broker.producer().await.unwrap();
    producer.publish(std::slice::from_ref(&job)).await.unwrap();
    backend.ledger.published(&[Publication::first(job.id.clone())]).await.unwrap();
    job.id
}

/// Accepts jobs, several at a time, and prints the confirmed ones, until the process is killed.
async fn accept_until_killed(folder: &Path) {
    let backend = open(folder).await;
    let accepting = (0..8).map(|_| async {
        loop {
            let id = accept(&backend).await;
            // This does not use `println`, because the test harness captures its output.
            let mut out = std::io::stdout().lock();
            writeln!(out, "\n{CONFIRMED}{id}").and_then(|()| out.flush()).unwrap();
        }
    });
    futures::future::join_all(accepting).await;
}

/// Checks that every confirmed job is in the ledger, and exactly once in the broker. No job may be there in part.
async fn check(folder: &Path, confirmed: &HashSet<JobId>) {
    let file = rusqlite::Connection::open(folder.join("millrace.db")).unwrap();
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    assert_eq!(file.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    assert_eq!(number("SELECT count(*) FROM jobs LEFT JOIN inputs USING (job) WHERE media_type IS NULL"), 0);
    assert_eq!(number("SELECT count(*) FROM inputs WHERE job NOT IN (SELECT job FROM jobs)"), 0);
    assert_eq!(number("SELECT count(*) FROM payloads WHERE seq NOT IN (SELECT seq FROM messages)"), 0);
    assert_eq!(number("SELECT count(*) FROM messages WHERE seq NOT IN (SELECT seq FROM payloads)"), 0);

    let backend = open(folder).await;
    for id in confirmed {
        let record = backend.ledger.get(id).await.unwrap();
        assert_eq!(record.map(|record| record.state), Some(JobState::Queued), "{id} was confirmed");
    }
    let gauge = backend.broker.gauge().await.unwrap();
    let consumer = backend.broker.consumer(&pool()).await.unwrap();
    let mut received: BTreeMap<JobId, usize> = BTreeMap::new();
    let mut held = Vec::new();
    while gauge.depths(&[pool()]).await.remove(0).unwrap().waiting() > 0 {
        for delivery in consumer.receive(1_000).await.unwrap() {
            assert_eq!(delivery.job.input.body, Body::Inline(delivery.job.id.to_string().repeat(40).into()));
            assert!(!delivery.redelivered);
            *received.entry(delivery.job.id.clone()).or_default() += 1;
            held.push((delivery, Settlement::Ack));
        }
    }
    for id in confirmed {
        assert_eq!(received.get(id), Some(&1), "{id} was confirmed");
    }
    consumer.settle(held).await.unwrap();
}

#[tokio::test]
async fn confirmed_jobs_are_there_after_reopening() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return accept_until_killed(&PathBuf::from(folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut confirmed = HashSet::new();
    for _ in 0..3 {
        let backend = open(folder.path()).await;
        for _ in 0..20 {
            confirmed.insert(accept(&backend).await);
        }
    }
    check(folder.path(), &confirmed).await;
}

#[tokio::test]
async fn confirmed_jobs_are_there_after_kill_nine() {
    let mut confirmed = HashSet::new();
    let folder = tempfile::tempdir().unwrap();
    for round in 0..6_usize {
        let mut children = [child(folder.path()), child(folder.path())];
        // Each child is killed while it accepts several jobs, after a different number of confirmed ones.
        for (number, child) in children.iter_mut().enumerate() {
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            let ids = lines.by_ref().filter_map(|line| line.strip_prefix(CONFIRMED).map(str::to_owned));
            let mut ids = ids.map(|id| id.parse::<JobId>().unwrap());
            confirmed.extend(ids.by_ref().take(1 + (round * 37 + number * 11) % 150));
            child.kill().unwrap();
            child.wait().unwrap();
            // The jobs that it confirmed before the kill took effect.
            confirmed.extend(ids);
        }
    }
    assert!(confirmed.len() > 300);
    check(folder.path(), &confirmed).await;
}

fn child(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--nocapture"]).env(FOLDER, folder);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}
