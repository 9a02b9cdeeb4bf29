//! Claims, leases and takeovers.

use super::*;

pub async fn a_claim_starts_the_first_attempt(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let before = fixture.now();
    let answer = claim_as(&*ledger, "worker-1", &job, false).await;
    let Claim::Granted { lease, alone: false } = answer else { panic!("{answer:?}") };
    assert_eq!((&lease.id, lease.attempt), (&job.id, 1));
    assert!(lease.fence >= 1);
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.attempts), (JobState::Leased, 1));
    assert_eq!(record.worker, Some(WorkerId::new("worker-1")));
    assert!(record.started_at.is_some_and(|started| (before..=fixture.now()).contains(&started)));
}

pub async fn a_live_lease_blocks_other_claims(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let job = job(fixture, "job");
    accept(&*one, std::slice::from_ref(&job)).await;
    let lease = claim(&*one, &job).await;
    assert_eq!(claim_as(&*another, "other", &job, false).await, Claim::HeldElsewhere);
    assert_eq!(get(&*one, &job).await.worker, Some(WorkerId::new("worker")));
    assert_eq!(finish(&*one, &lease, success("done")).await, Some(JobState::Succeeded));
    assert_eq!(claim_as(&*another, "other", &job, false).await, Claim::Ended(JobState::Succeeded));
}

pub async fn a_repeated_claim_gets_the_same_lease(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 2, ..job(fixture, "job") };
    let worker = WorkerId::new("worker");
    // First the job is unknown, then its worker has disappeared and the job is a suspect. An attempt that never begins
    // is not charged, so three claims need only two attempts.
    for (redelivered, alone) in [(false, false), (true, true), (true, true)] {
        let requests = vec![ClaimRequest::new(job.clone(), redelivered)];
        let first = ledger.claim(&worker, requests.clone(), LEASE).await.unwrap();
        assert!(matches!(&first[..], [Claim::Granted { alone: found, .. }] if *found == alone), "{first:?}");
        let record = get(&*ledger, &job).await;
        fixture.advance(LEASE * 3 / 5).await;
        assert_eq!(ledger.claim(&worker, requests, LEASE).await.unwrap(), first);
        assert_eq!(get(&*ledger, &job).await, record);
        // The lease has its full length from the repetition on.
        fixture.advance(LEASE * 3 / 5).await;
        assert!(due(&*ledger).await.is_empty());
        assert_eq!(claim_as(&*ledger, "worker", &job, false).await, Claim::HeldElsewhere);
    }
}

pub async fn a_repeated_claim_does_not_take_the_lease_of_another_worker(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let (worker, requests) = (WorkerId::new("worker"), vec![ClaimRequest::new(job.clone(), false)]);
    ledger.claim(&worker, requests.clone(), LEASE).await.unwrap();
    let lease = granted(claim_as(&*ledger, "other", &job, true).await);
    assert_eq!(ledger.claim(&worker, requests.clone(), LEASE).await.unwrap(), [Claim::HeldElsewhere]);
    assert_eq!(finish(&*ledger, &lease, retry(Duration::ZERO)).await, Some(JobState::Retry));
    assert_eq!(ledger.claim(&worker, requests.clone(), LEASE).await.unwrap(), [Claim::HeldElsewhere]);
    ledger.cancel(&job.id).await.unwrap();
    assert_eq!(ledger.claim(&worker, requests, LEASE).await.unwrap(), [Claim::Ended(JobState::Cancelled)]);
}

pub async fn a_redelivered_job_is_taken_over_and_run_alone(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let former = claim(&*ledger, &job).await;
    let answer = claim_as(&*ledger, "other", &job, true).await;
    let Claim::Granted { lease, alone: true } = answer else { panic!("{answer:?}") };
    assert!(lease.fence > former.fence);
    assert_eq!(lease.attempt, 2);
    assert_eq!(ledger.renew(&[former, lease], LEASE).await.unwrap(), [false, true]);
}

pub async fn a_claim_of_an_unknown_job_opens_it(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    let lease = claim(&*ledger, &job).await;
    assert_eq!(lease.attempt, 1);
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.pool, record.created_at), (JobState::Leased, job.pool.clone(), job.created_at));
    // Its input is stored: it can be published again.
    finish(&*ledger, &lease, retry(Duration::ZERO)).await;
    assert_eq!(due(&*ledger).await.remove(0).job, job);
}

pub async fn a_stale_worker_cannot_overwrite_a_result(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let stale = claim(&*ledger, &job).await;
    let lease = granted(claim_as(&*ledger, "other", &job, true).await);
    assert_eq!(finish(&*ledger, &lease, success("right")).await, Some(JobState::Succeeded));
    assert_eq!(finish(&*ledger, &stale, success("wrong")).await, None);
    assert_eq!(get(&*ledger, &job).await.output, Some(output("right")));
}

pub async fn a_stale_worker_cannot_end_anothers_attempt(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let stale = claim(&*ledger, &job).await;
    let lease = granted(claim_as(&*ledger, "other", &job, true).await);
    for outcome in [success("wrong"), Outcome::Failed(error("wrong")), retry(Duration::ZERO), Outcome::Released] {
        assert_eq!(finish(&*ledger, &stale, outcome).await, None);
    }
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.worker, record.error), (JobState::Leased, Some(WorkerId::new("other")), None));
    assert_eq!(finish(&*ledger, &lease, success("right")).await, Some(JobState::Succeeded));
}

pub async fn a_renewed_lease_holds_longer_and_a_lost_one_is_named(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [kept, lost] = ["kept", "lost"].map(|id| job(fixture, id));
    accept(&*ledger, &[kept.clone(), lost.clone()]).await;
    let leases = [claim(&*ledger, &kept).await, claim(&*ledger, &lost).await];
    fixture.advance(LEASE * 3 / 5).await;
    assert_eq!(ledger.renew(&leases[..1], LEASE).await.unwrap(), [true]);
    fixture.advance(LEASE * 3 / 5).await;
    assert_eq!(due(&*ledger).await.iter().map(|due| &due.job.id).collect::<Vec<_>>(), [&lost.id]);
    assert_eq!(ledger.renew(&leases, LEASE).await.unwrap(), [true, false]);
    let unknown = Lease { id: "unknown".parse().unwrap(), ..leases[0].clone() };
    assert_eq!(ledger.renew(&[unknown], LEASE).await.unwrap(), [false]);
}

pub async fn an_expired_lease_becomes_due_and_its_former_worker_is_rejected(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    assert!(due(&*ledger).await.is_empty());
    fixture.advance(LEASE * 2).await;
    assert_eq!(due(&*ledger).await.remove(0).job, job);
    assert_eq!(get(&*ledger, &job).await.state, JobState::Queued);
    assert_eq!(finish(&*ledger, &lease, success("late")).await, None);
    let answer = claim_as(&*ledger, "other", &job, false).await;
    assert!(matches!(answer, Claim::Granted { lease: Lease { attempt: 2, .. }, alone: true }), "{answer:?}");
}

pub async fn an_expired_lease_still_finishes_before_another_worker_claims_the_job(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [slow, taken] = ["slow", "taken"].map(|id| job(fixture, id));
    accept(&*ledger, &[slow.clone(), taken.clone()]).await;
    let leases = [claim(&*ledger, &slow).await, claim(&*ledger, &taken).await];
    fixture.advance(LEASE * 2).await;
    granted(claim_as(&*ledger, "other", &taken, false).await);
    assert_eq!(finish(&*ledger, &leases[0], success("late")).await, Some(JobState::Succeeded));
    assert_eq!(finish(&*ledger, &leases[1], success("late")).await, None);
}

/// A broker delivers a job again when its holder lost a connection, or when its own consumers were late.
pub async fn a_redelivered_job_stays_with_a_holder_in_the_roster(fixture: &dyn Fixture) {
    let (ledger, roster) = {
        let backend = fixture.open().await;
        (backend.ledger, backend.roster)
    };
    let job = Job { max_attempts: 1, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    roster.heartbeat(&crate::roster::worker(fixture, "worker"), LEASE).await.unwrap();
    for worker in ["other", "other", "worker"] {
        assert_eq!(claim_as(&*ledger, worker, &job, true).await, Claim::HeldElsewhere);
    }
    fixture.advance(LEASE / 3).await;
    assert_eq!(ledger.renew(std::slice::from_ref(&lease), LEASE).await.unwrap(), [true]);
    fixture.advance(LEASE * 3 / 5).await;
    assert!(due(&*ledger).await.is_empty());
    assert_eq!(finish(&*ledger, &lease, success("done")).await, Some(JobState::Succeeded));
    assert_eq!(get(&*ledger, &job).await.attempts, 1);
}

pub async fn a_redelivered_job_is_due_soon_if_its_holder_does_not_renew(fixture: &dyn Fixture) {
    let (ledger, roster) = {
        let backend = fixture.open().await;
        (backend.ledger, backend.roster)
    };
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    claim(&*ledger, &job).await;
    roster.heartbeat(&crate::roster::worker(fixture, "worker"), LEASE).await.unwrap();
    assert_eq!(claim_as(&*ledger, "other", &job, true).await, Claim::HeldElsewhere);
    fixture.advance(LEASE * 3 / 5).await;
    assert_eq!(due(&*ledger).await.remove(0).job, job);
}

/// During an outage of the ledger no worker can renew, so an expired lease does not show that its holder disappeared.
pub async fn a_lease_that_expired_in_an_outage_may_still_be_renewed(fixture: &dyn Fixture) {
    let (ledger, roster) = {
        let backend = fixture.open().await;
        (backend.ledger, backend.roster)
    };
    let [renewed, abandoned] = ["renewed", "abandoned"].map(|id| Job { max_attempts: 1, ..job(fixture, id) });
    accept(&*ledger, &[renewed.clone(), abandoned.clone()]).await;
    let lease = claim(&*ledger, &renewed).await;
    claim(&*ledger, &abandoned).await;
    roster.heartbeat(&crate::roster::worker(fixture, "worker"), LEASE).await.unwrap();
    assert!(due(&*ledger).await.is_empty());
    fixture.advance_in_outage(LEASE * 4).await;
    for redelivered in [true, false] {
        assert_eq!(claim_as(&*ledger, "other", &renewed, redelivered).await, Claim::HeldElsewhere);
    }
    assert!(due(&*ledger).await.is_empty());
    assert_eq!(claim_as(&*ledger, "other", &abandoned, true).await, Claim::HeldElsewhere);
    assert_eq!(ledger.renew(std::slice::from_ref(&lease), LEASE).await.unwrap(), [true]);
    assert_eq!(finish(&*ledger, &lease, success("done")).await, Some(JobState::Succeeded));
    // The grace ends.
    fixture.advance(LEASE * 4).await;
    assert_eq!(due(&*ledger).await.remove(0).job.id, abandoned.id);
}
