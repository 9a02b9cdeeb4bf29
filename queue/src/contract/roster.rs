//! What every roster promises.

use std::time::Duration;

use super::{Fixture, pool};
use crate::{PoolName, Roster, WorkerId, WorkerRecord, WorkerState};

/// Makes one test per promise of a roster; the argument makes a [`Fixture`] for each.
#[macro_export]
macro_rules! roster_contract {
    ($fixture:expr) => {
        $crate::promises! {
            $fixture,
            roster,
            a_worker_is_seen_by_other_processes_with_every_field_intact
            the_last_beat_of_a_worker_is_what_is_known_of_it
            a_worker_is_alive_for_as_long_as_it_said
            a_worker_that_beats_again_is_alive_again
            a_worker_that_leaves_is_gone_at_once
            striking_out_an_unknown_worker_changes_nothing
            workers_are_listed_by_id_and_by_pool
        }
    };
}

const ALIVE: Duration = Duration::from_secs(10);

fn worker(fixture: &dyn Fixture, id: &str) -> WorkerRecord {
    WorkerRecord {
        id: WorkerId::new(id),
        pool: pool(),
        state: WorkerState::Idle,
        started_at: fixture.now(),
        batch_items: 7.25,
        batch_seconds: 0.012_345,
        cold_start_seconds: 3.5,
    }
}

async fn names(roster: &dyn Roster, pool: &PoolName) -> Vec<String> {
    roster.workers(pool).await.unwrap().into_iter().map(|worker| worker.id.to_string()).collect()
}

pub async fn a_worker_is_seen_by_other_processes_with_every_field_intact(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    for state in [WorkerState::Loading, WorkerState::Idle, WorkerState::Busy, WorkerState::Draining] {
        let worker = WorkerRecord { state, ..worker(fixture, "host/17/größe") };
        one.roster.beat(&worker, ALIVE).await.unwrap();
        assert_eq!(another.roster.workers(&pool()).await.unwrap(), [worker]);
    }
}

pub async fn the_last_beat_of_a_worker_is_what_is_known_of_it(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let other: PoolName = "bert".parse().unwrap();
    let first = worker(fixture, "a");
    process.roster.beat(&first, ALIVE).await.unwrap();
    let last = WorkerRecord { state: WorkerState::Busy, batch_items: 8.0, pool: other.clone(), ..first };
    process.roster.beat(&last, ALIVE).await.unwrap();
    assert!(process.roster.workers(&pool()).await.unwrap().is_empty());
    assert_eq!(process.roster.workers(&other).await.unwrap(), [last]);
}

pub async fn a_worker_is_alive_for_as_long_as_it_said(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    process.roster.beat(&worker(fixture, "short"), ALIVE).await.unwrap();
    process.roster.beat(&worker(fixture, "long"), ALIVE * 4).await.unwrap();
    fixture.advance(ALIVE / 2).await;
    assert_eq!(names(&*process.roster, &pool()).await, ["long", "short"]);
    fixture.advance(ALIVE).await;
    assert_eq!(names(&*process.roster, &pool()).await, ["long"]);
    fixture.advance(ALIVE * 4).await;
    assert!(names(&*process.roster, &pool()).await.is_empty());
}

pub async fn a_worker_that_beats_again_is_alive_again(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    process.roster.beat(&worker(fixture, "a"), ALIVE).await.unwrap();
    fixture.advance(ALIVE * 2).await;
    process.roster.beat(&worker(fixture, "b"), ALIVE).await.unwrap();
    assert_eq!(names(&*process.roster, &pool()).await, ["b"]);
    process.roster.beat(&worker(fixture, "a"), ALIVE).await.unwrap();
    assert_eq!(names(&*process.roster, &pool()).await, ["a", "b"]);
}

pub async fn a_worker_that_leaves_is_gone_at_once(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    for id in ["a", "b"] {
        one.roster.beat(&worker(fixture, id), ALIVE).await.unwrap();
    }
    another.roster.leave(&WorkerId::new("a")).await.unwrap();
    assert_eq!(names(&*one.roster, &pool()).await, ["b"]);
}

pub async fn striking_out_an_unknown_worker_changes_nothing(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    process.roster.beat(&worker(fixture, "a"), ALIVE).await.unwrap();
    process.roster.leave(&WorkerId::new("b")).await.unwrap();
    assert_eq!(names(&*process.roster, &pool()).await, ["a"]);
}

pub async fn workers_are_listed_by_id_and_by_pool(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let other: PoolName = "bert".parse().unwrap();
    for id in ["c", "a", "b"] {
        process.roster.beat(&worker(fixture, id), ALIVE).await.unwrap();
    }
    process.roster.beat(&WorkerRecord { pool: other.clone(), ..worker(fixture, "d") }, ALIVE).await.unwrap();
    assert_eq!(names(&*process.roster, &pool()).await, ["a", "b", "c"]);
    assert_eq!(names(&*process.roster, &other).await, ["d"]);
    assert!(names(&*process.roster, &"nobody".parse().unwrap()).await.is_empty());
}
