//! Steps of the ledger's clock.

use super::*;

/// Far longer than a lease or a retry.
const STEP: Duration = Duration::from_secs(3600);

pub async fn a_clock_that_is_set_forward_ends_no_lease(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 1, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    assert!(due(&*ledger).await.is_empty());
    // No process notices a step before its next look, so it resembles an outage.
    fixture.advance_in_outage(STEP).await;
    assert!(due(&*ledger).await.is_empty());
    for redelivered in [true, false] {
        assert_eq!(claim_as(&*ledger, "other", &job, redelivered).await, Claim::HeldElsewhere);
    }
    assert_eq!(ledger.renew(std::slice::from_ref(&lease), LEASE).await.unwrap(), [true]);
    assert_eq!(finish(&*ledger, &lease, success("done")).await, Some(JobState::Succeeded));
}

pub async fn a_clock_that_is_set_back_delays_no_retry_lease_or_unconfirmed_publication(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [waiting, retried, abandoned, unconfirmed] =
        ["waiting", "retried", "abandoned", "unconfirmed"].map(|id| job(fixture, id));
    accept(&*ledger, &[waiting, retried.clone(), abandoned.clone()]).await;
    assert_eq!(finish(&*ledger, &claim(&*ledger, &retried).await, retry(LEASE)).await, Some(JobState::Retry));
    claim(&*ledger, &abandoned).await;
    ledger.submit(std::slice::from_ref(&unconfirmed)).await.unwrap();
    assert!(due(&*ledger).await.is_empty());

    fixture.set_back(STEP).await;
    let mut found = due(&*ledger).await;
    assert!(found.iter().all(|due| due.job == retried), "only a retry may be early: {found:?}");
    fixture.advance(PUBLISH_TIMEOUT + LEASE).await;
    found.extend(due(&*ledger).await);
    let mut ids: Vec<_> = found.iter().map(|due| due.job.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids, [abandoned.id, retried.id, unconfirmed.id]);
}
