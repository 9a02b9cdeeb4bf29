//! The promises of every roster.

use std::slice;
use std::time::Duration;

use crate::{Fixture, pool};
use queue::{Measured, PoolName, Roster, WorkerId, WorkerRecord, WorkerState};

/// Makes one test per promise of a roster; the argument makes a [`Fixture`] for each.
#[macro_export]
macro_rules! roster_contract {
    ($fixture:expr) => {
        $crate::promises! {
            $fixture,
            roster,
            a_worker_is_seen_by_other_processes_with_every_field_intact
            the_last_heartbeat_of_a_worker_replaces_earlier_ones
            a_worker_is_live_for_the_time_that_its_heartbeat_asks_for
            a_worker_with_a_new_heartbeat_is_live_again
            a_worker_that_leaves_is_gone_at_once
            removing_an_unknown_worker_changes_nothing
            workers_are_listed_by_id_and_by_pool
            workers_of_any_number_of_pools_come_in_one_call_in_order
            measurements_stay_after_their_worker_has_left
            measurements_stay_after_their_worker_has_vanished
            the_last_measurements_of_a_pool_replace_earlier_ones
            a_worker_without_measurements_does_not_change_those_of_its_pool
            measurements_of_any_number_of_pools_come_in_one_call_in_order
        }
    };
}

const ALIVE: Duration = Duration::from_secs(10);

pub(crate) fn worker(fixture: &dyn Fixture, id: &str) -> WorkerRecord {
    WorkerRecord {
        id: WorkerId::new(id),
        pool: pool(),
        state: WorkerState::Idle,
        started_at: fixture.now(),
        batch_items: 7.25,
        batch_seconds: 0.012_345,
        batch_base_seconds: 0.1 + 0.2,
        batch_item_seconds: 1.0e-9,
        batch_limit_items: u32::MAX,
        cold_start_seconds: 3.5,
    }
}

async fn of(roster: &dyn Roster, pool: &PoolName) -> Vec<WorkerRecord> {
    let [workers] = <[_; 1]>::try_from(roster.workers(slice::from_ref(pool)).await.unwrap()).unwrap();
    workers
}

async fn measurements(roster: &dyn Roster, pool: &PoolName) -> Option<Measured> {
    let [measured] = <[_; 1]>::try_from(roster.measured(slice::from_ref(pool)).await.unwrap()).unwrap();
    measured
}

async fn names(roster: &dyn Roster, pool: &PoolName) -> Vec<String> {
    of(roster, pool).await.into_iter().map(|worker| worker.id.to_string()).collect()
}

pub async fn a_worker_is_seen_by_other_processes_with_every_field_intact(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    for state in [WorkerState::Loading, WorkerState::Idle, WorkerState::Busy, WorkerState::Draining] {
        let worker = WorkerRecord { state, ..worker(fixture, "host/17/größe") };
        one.roster.heartbeat(&worker, ALIVE).await.unwrap();
        assert_eq!(of(&*another.roster, &pool()).await, [worker]);
    }
}

pub async fn the_last_heartbeat_of_a_worker_replaces_earlier_ones(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let other: PoolName = "bert".parse().unwrap();
    let first = worker(fixture, "a");
    process.roster.heartbeat(&first, ALIVE).await.unwrap();
    let last = WorkerRecord { state: WorkerState::Busy, batch_items: 8.0, pool: other.clone(), ..first };
    process.roster.heartbeat(&last, ALIVE).await.unwrap();
    assert!(of(&*process.roster, &pool()).await.is_empty());
    assert_eq!(of(&*process.roster, &other).await, [last]);
}

pub async fn a_worker_is_live_for_the_time_that_its_heartbeat_asks_for(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    process.roster.heartbeat(&worker(fixture, "short"), ALIVE).await.unwrap();
    process.roster.heartbeat(&worker(fixture, "long"), ALIVE * 4).await.unwrap();
    fixture.advance(ALIVE / 2).await;
    assert_eq!(names(&*process.roster, &pool()).await, ["long", "short"]);
    fixture.advance(ALIVE).await;
    assert_eq!(names(&*process.roster, &pool()).await, ["long"]);
    fixture.advance(ALIVE * 4).await;
    assert!(names(&*process.roster, &pool()).await.is_empty());
}

pub async fn a_worker_with_a_new_heartbeat_is_live_again(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    process.roster.heartbeat(&worker(fixture, "a"), ALIVE).await.unwrap();
    fixture.advance(ALIVE * 2).await;
    process.roster.heartbeat(&worker(fixture, "b"), ALIVE).await.unwrap();
    assert_eq!(names(&*process.roster, &pool()).await, ["b"]);
    process.roster.heartbeat(&worker(fixture, "a"), ALIVE).await.unwrap();
    assert_eq!(names(&*process.roster, &pool()).await, ["a", "b"]);
}

pub async fn a_worker_that_leaves_is_gone_at_once(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    for id in ["a", "b"] {
        one.roster.heartbeat(&worker(fixture, id), ALIVE).await.unwrap();
    }
    another.roster.leave(&WorkerId::new("a")).await.unwrap();
    assert_eq!(names(&*one.roster, &pool()).await, ["b"]);
}

pub async fn removing_an_unknown_worker_changes_nothing(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    process.roster.heartbeat(&worker(fixture, "a"), ALIVE).await.unwrap();
    process.roster.leave(&WorkerId::new("b")).await.unwrap();
    assert_eq!(names(&*process.roster, &pool()).await, ["a"]);
}

pub async fn workers_are_listed_by_id_and_by_pool(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let other: PoolName = "bert".parse().unwrap();
    for id in ["c", "a", "b"] {
        process.roster.heartbeat(&worker(fixture, id), ALIVE).await.unwrap();
    }
    process.roster.heartbeat(&WorkerRecord { pool: other.clone(), ..worker(fixture, "d") }, ALIVE).await.unwrap();
    assert_eq!(names(&*process.roster, &pool()).await, ["a", "b", "c"]);
    assert_eq!(names(&*process.roster, &other).await, ["d"]);
    assert!(names(&*process.roster, &"nobody".parse().unwrap()).await.is_empty());
}

pub async fn workers_of_any_number_of_pools_come_in_one_call_in_order(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let numbered = |number: usize| format!("pool-{number}").parse::<PoolName>().unwrap();
    let mut expected = vec![Vec::new(); 10_000];
    for (number, ids) in [(0, &["b", "a"][..]), (4_321, &["d"]), (9_999, &["f", "e", "g"])] {
        for id in ids {
            let worker = WorkerRecord { pool: numbered(number), ..worker(fixture, id) };
            process.roster.heartbeat(&worker, ALIVE).await.unwrap();
            expected[number].push(worker);
        }
        expected[number].sort_by(|one, other| one.id.cmp(&other.id));
    }
    process.roster.heartbeat(&worker(fixture, "not requested"), ALIVE).await.unwrap();
    let pools: Vec<PoolName> = (0..expected.len()).map(numbered).collect();
    assert_eq!(process.roster.workers(&pools).await.unwrap(), expected);

    let twice = [numbered(9_999), numbered(1), numbered(9_999)];
    let of_twice = [&expected[9_999], &expected[1], &expected[9_999]].map(Clone::clone);
    assert_eq!(process.roster.workers(&twice).await.unwrap(), of_twice);
    assert!(process.roster.workers(&[]).await.unwrap().is_empty());
}

pub async fn measurements_stay_after_their_worker_has_left(fixture: &dyn Fixture) {
    let one = fixture.open().await;
    let worker = worker(fixture, "a");
    one.roster.heartbeat(&worker, ALIVE).await.unwrap();
    let measured = measurements(&*one.roster, &pool()).await.unwrap();
    assert_eq!(Some(measured), worker.measured());
    assert_eq!(
        (measured.batch_base_seconds, measured.batch_item_seconds, measured.batch_limit_items),
        (0.1 + 0.2, 1.0e-9, u32::MAX)
    );
    assert_eq!(measured.cold_start_seconds, 3.5);
    one.roster.leave(&worker.id).await.unwrap();
    assert!(of(&*one.roster, &pool()).await.is_empty());
    assert_eq!(measurements(&*one.roster, &pool()).await, Some(measured));
    fixture.kill(one).await;
    let another = fixture.open().await;
    assert_eq!(measurements(&*another.roster, &pool()).await, Some(measured));
}

pub async fn measurements_stay_after_their_worker_has_vanished(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    let worker = worker(fixture, "a");
    one.roster.heartbeat(&worker, ALIVE).await.unwrap();
    fixture.kill(one).await;
    fixture.advance(ALIVE * 1_000).await;
    assert!(of(&*another.roster, &pool()).await.is_empty());
    assert_eq!(measurements(&*another.roster, &pool()).await, worker.measured());
    // The heartbeat of another worker removes expired ones.
    let silent = WorkerRecord { id: WorkerId::new("b"), ..without_a_batch(&worker) };
    another.roster.heartbeat(&silent, ALIVE).await.unwrap();
    assert_eq!(measurements(&*another.roster, &pool()).await, worker.measured());
}

pub async fn the_last_measurements_of_a_pool_replace_earlier_ones(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    let first = worker(fixture, "a");
    one.roster.heartbeat(&first, ALIVE).await.unwrap();
    let changes = [
        WorkerRecord { batch_base_seconds: 0.5, ..first.clone() },
        WorkerRecord { batch_base_seconds: 0.0, ..first.clone() },
        WorkerRecord { id: WorkerId::new("b"), batch_item_seconds: 0.25, ..first.clone() },
        WorkerRecord { batch_limit_items: 16, ..first.clone() },
        WorkerRecord { cold_start_seconds: 60.0, ..first.clone() },
        WorkerRecord { state: WorkerState::Draining, ..first.clone() },
    ];
    for last in changes {
        another.roster.heartbeat(&last, ALIVE).await.unwrap();
        assert!(last.measured().is_some());
        assert_eq!(measurements(&*one.roster, &pool()).await, last.measured());
    }
    // The measurements of the worker in another pool do not belong to this pool.
    let moved = WorkerRecord { pool: "bert".parse().unwrap(), batch_limit_items: 1, ..first.clone() };
    another.roster.heartbeat(&moved, ALIVE).await.unwrap();
    assert_eq!(measurements(&*one.roster, &pool()).await, first.measured());
    assert_eq!(measurements(&*one.roster, &moved.pool).await, moved.measured());
}

/// The heartbeat of a worker that loads, or of a ready one that has run no batch.
fn without_a_batch(worker: &WorkerRecord) -> WorkerRecord {
    WorkerRecord { batch_base_seconds: 0.0, batch_item_seconds: 0.0, ..worker.clone() }
}

pub async fn a_worker_without_measurements_does_not_change_those_of_its_pool(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let worker = worker(fixture, "a");
    let silent = without_a_batch(&worker);
    process.roster.heartbeat(&silent, ALIVE).await.unwrap();
    assert_eq!(measurements(&*process.roster, &pool()).await, None);
    process.roster.heartbeat(&worker, ALIVE).await.unwrap();
    for id in ["a", "b"] {
        let silent = WorkerRecord { id: WorkerId::new(id), cold_start_seconds: 0.0, ..silent.clone() };
        process.roster.heartbeat(&silent, ALIVE).await.unwrap();
        assert_eq!(measurements(&*process.roster, &pool()).await, worker.measured());
    }
    let without_limit = WorkerRecord { batch_limit_items: 0, ..worker.clone() };
    process.roster.heartbeat(&without_limit, ALIVE).await.unwrap();
    assert_eq!(measurements(&*process.roster, &pool()).await, worker.measured());
}

pub async fn measurements_of_any_number_of_pools_come_in_one_call_in_order(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let numbered = |number: usize| format!("pool-{number}").parse::<PoolName>().unwrap();
    let mut expected = vec![None; 10_000];
    for number in [0, 4_321, 9_999] {
        let id = format!("of {number}");
        let limit = 1 + u32::try_from(number).unwrap();
        let worker = WorkerRecord { pool: numbered(number), batch_limit_items: limit, ..worker(fixture, &id) };
        process.roster.heartbeat(&worker, ALIVE).await.unwrap();
        process.roster.leave(&worker.id).await.unwrap();
        expected[number] = worker.measured();
    }
    process.roster.heartbeat(&worker(fixture, "not requested"), ALIVE).await.unwrap();
    let pools: Vec<PoolName> = (0..expected.len()).map(numbered).collect();
    assert_eq!(process.roster.measured(&pools).await.unwrap(), expected);

    let twice = [numbered(9_999), numbered(1), numbered(9_999)];
    assert_eq!(process.roster.measured(&twice).await.unwrap(), [expected[9_999], None, expected[9_999]]);
    assert!(process.roster.measured(&[]).await.unwrap().is_empty());
}
