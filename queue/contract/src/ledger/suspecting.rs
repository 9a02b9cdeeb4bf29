//! Suspects: jobs whose worker vanished, and the attempts that count.

use super::*;

/// How a ledger detects that a worker vanished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The broker delivers the job again.
    Redelivered,
    /// Another worker claims it after its lease has expired.
    TakenOver,
    /// Its lease expires, and it is published again.
    Due,
}

const WAYS: [Way; 3] = [Way::Redelivered, Way::TakenOver, Way::Due];

async fn vanish(fixture: &dyn Fixture, ledger: &dyn Ledger, way: Way) {
    if way != Way::Redelivered {
        fixture.advance(LEASE * 2).await;
    }
    if way == Way::Due {
        assert_eq!(due(ledger).await.len(), 1);
    }
}

/// Claims a job that must be a suspect.
async fn claim_suspect(ledger: &dyn Ledger, job: &Job, redelivered: bool) -> Lease {
    match claim_as(ledger, "doomed", job, redelivered).await {
        Claim::Granted { lease, alone: true } => lease,
        other => panic!("not granted to be run alone: {other:?}"),
    }
}

/// A job with two attempts whose first worker vanished in this way.
async fn suspect(fixture: &dyn Fixture, ledger: &dyn Ledger, way: Way) -> Job {
    let suspect = Job { max_attempts: 2, ..job(fixture, &format!("{way:?}")) };
    accept(ledger, std::slice::from_ref(&suspect)).await;
    claim(ledger, &suspect).await;
    vanish(fixture, ledger, way).await;
    suspect
}

pub async fn a_suspect_that_was_never_begun_is_not_charged_when_its_holder_vanishes(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    for way in WAYS {
        let suspect = suspect(fixture, &*ledger, way).await;
        for _ in 0..5 {
            assert_eq!(claim_suspect(&*ledger, &suspect, way == Way::Redelivered).await.attempt, 2);
            assert_eq!(get(&*ledger, &suspect).await.attempts, 2);
            vanish(fixture, &*ledger, way).await;
        }
        let lease = claim_suspect(&*ledger, &suspect, way == Way::Redelivered).await;
        assert_eq!(finish(&*ledger, &lease, success("done")).await, Some(JobState::Succeeded));
        assert_eq!(get(&*ledger, &suspect).await.attempts, 2);
    }
}

pub async fn a_suspect_that_was_begun_is_charged(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    for way in WAYS {
        let suspect = suspect(fixture, &*ledger, way).await;
        let lease = claim_suspect(&*ledger, &suspect, way == Way::Redelivered).await;
        assert_eq!(lease.attempt, 2);
        // A repeated call charges once.
        assert!(ledger.begin(&lease).await.unwrap());
        assert!(ledger.begin(&lease).await.unwrap());
        vanish(fixture, &*ledger, way).await;
        let answer = claim_as(&*ledger, "other", &suspect, way == Way::Redelivered).await;
        assert_eq!(answer, Claim::Ended(JobState::Dead));
        assert_eq!(get(&*ledger, &suspect).await.attempts, 2);
    }
}

pub async fn begin_reports_a_lost_lease(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let job = job(fixture, "job");
    accept(&*one, std::slice::from_ref(&job)).await;
    let stale = claim(&*one, &job).await;
    assert!(one.begin(&stale).await.unwrap());
    let lease = claim_suspect(&*another, &job, true).await;
    // A call with the former lease does not begin the new attempt.
    assert!(!one.begin(&stale).await.unwrap());
    let next = claim_suspect(&*another, &job, true).await;
    assert_eq!((next.attempt, another.begin(&lease).await.unwrap()), (2, false));
    assert!(another.begin(&next).await.unwrap());
    finish(&*another, &next, success("done")).await;
    assert!(!another.begin(&next).await.unwrap());
    let unknown = Lease { id: "unknown".parse().unwrap(), ..next };
    assert!(!one.begin(&unknown).await.unwrap());
}

pub async fn a_killer_ends_dead_and_an_innocent_beside_it_stays_claimable(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let innocent = Job { max_attempts: 2, ..job(fixture, "innocent") };
    accept(&*ledger, std::slice::from_ref(&innocent)).await;
    let mut lease = claim(&*ledger, &innocent).await;
    // The number of jobs beside it that kill their workers does not matter.
    for killer in jobs(fixture, 3) {
        accept(&*ledger, std::slice::from_ref(&killer)).await;
        let mut crashes = 0;
        let ended = loop {
            match claim_as(&*ledger, "doomed", &killer, crashes > 0).await {
                Claim::Granted { lease, alone } => assert!(!alone || ledger.begin(&lease).await.unwrap()),
                other => break other,
            }
            crashes += 1;
            lease = claim_suspect(&*ledger, &innocent, true).await;
        };
        assert_eq!((ended, crashes), (Claim::Ended(JobState::Dead), killer.max_attempts));
        assert_eq!(get(&*ledger, &killer).await.attempts, killer.max_attempts);
    }
    assert_eq!(lease.attempt, 2);
    assert_eq!(finish(&*ledger, &lease, success("done")).await, Some(JobState::Succeeded));
}
