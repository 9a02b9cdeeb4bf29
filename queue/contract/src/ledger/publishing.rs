//! Jobs that must be published again.

use super::*;

pub async fn a_published_job_is_not_due(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    accept(&*ledger, &jobs(fixture, 3)).await;
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert!(due(&*ledger).await.is_empty());
}

pub async fn a_published_job_is_due_after_hours_and_counts_as_queued(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    for _ in 0..2 {
        assert_eq!(counts(&*ledger).await, JobCounts { queued: 1, ..JobCounts::default() });
        fixture.advance(CHECK_AFTER + Duration::from_secs(1)).await;
        let due = due(&*ledger).await.remove(0);
        assert_eq!(due.job, job);
        assert_eq!(counts(&*ledger).await, JobCounts { retry: 1, ..JobCounts::default() });
        ledger.published(&[due.publication]).await.unwrap();
        let answers = ledger.submit(std::slice::from_ref(&job)).await.unwrap();
        assert!(matches!(answers[0], Submitted::Existing { publish: None, .. }), "{answers:?}");
    }
    assert!(matches!(claim_as(&*ledger, "worker", &job, false).await, Claim::Granted { alone: false, .. }));
}

pub async fn a_queued_job_past_its_deadline_expires_without_a_delivery(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let deadline_at = Some(fixture.now() + Duration::from_secs(40));
    let job = Job { deadline_at, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let record = ledger.watch(&job.id).await.unwrap();
    fixture.advance(Duration::from_secs(30)).await;
    assert!(due(&*ledger).await.is_empty());
    fixture.advance(Duration::from_secs(11)).await;
    assert!(due(&*ledger).await.is_empty());
    let last = soon(record.map(Result::unwrap).collect::<Vec<_>>()).await.pop().unwrap();
    assert_eq!((last.state, last.attempts), (JobState::Expired, 0));
    assert_eq!(counts(&*ledger).await, JobCounts { ended: 1, ..JobCounts::default() });
}

pub async fn a_job_with_an_unconfirmed_publication_is_due_with_its_input(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let mut submitted = job(fixture, "job");
    submitted.trace_parent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    submitted.origin = Some(queue::Origin { source: "/cameras/7".to_owned(), id: "4711".to_owned() });
    submitted.deadline_at = Some(fixture.now() + Duration::from_secs(600));
    submitted.input.body = Body::Inline(Bytes::from_static(&[0xff, 0x00, 0xfe]));
    let mut by_reference = job(fixture, "big");
    by_reference.input.body = blob("input/big/1", "ab");
    ledger.submit(&[submitted.clone(), by_reference.clone()]).await.unwrap();
    assert!(due(&*ledger).await.is_empty());
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    let mut jobs: Vec<_> = due(&*ledger).await.into_iter().map(|due| due.job).collect();
    jobs.sort_by_key(|job| job.id.clone());
    assert_eq!(jobs, [by_reference, submitted.clone()]);
    assert_eq!(get(&*ledger, &submitted).await.state, JobState::Queued);
}

pub async fn a_due_job_is_given_to_one_caller_only(fixture: &dyn Fixture) {
    let ledgers = [open(fixture).await, open(fixture).await, open(fixture).await];
    ledgers[0].submit(&jobs(fixture, 50)).await.unwrap();
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    let asking = ledgers.iter().flat_map(|ledger| (0..4).map(|_| ledger.due(9)));
    let mut given: Vec<JobId> = Vec::new();
    for due in soon(futures::future::join_all(asking)).await {
        given.extend(due.unwrap().into_iter().map(|due| due.job.id));
    }
    assert_eq!(given.len(), 50);
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 50);
}

pub async fn a_due_job_that_is_not_published_is_due_again(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    ledger.submit(&jobs(fixture, 1)).await.unwrap();
    let mut fences = Vec::new();
    for _ in 0..3 {
        fixture.advance(PUBLISH_TIMEOUT * 2).await;
        fences.extend(due(&*ledger).await.into_iter().map(|due| due.publication.fence));
        assert!(due(&*ledger).await.is_empty());
    }
    assert_eq!(fences.len(), 3);
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
}

pub async fn due_returns_no_more_than_its_limit(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    ledger.submit(&jobs(fixture, 5)).await.unwrap();
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert_eq!(ledger.due(3).await.unwrap().len(), 3);
    assert_eq!(ledger.due(3).await.unwrap().len(), 2);
    assert_eq!(ledger.due(3).await.unwrap().len(), 0);
}

pub async fn a_late_confirmation_does_not_touch_a_later_publication(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    ledger.submit(std::slice::from_ref(&job)).await.unwrap();
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    let given = due(&*ledger).await.remove(0);
    ledger.published(&[Publication::first(job.id.clone())]).await.unwrap();
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert_eq!(due(&*ledger).await.len(), 1);
    ledger.published(&[given.publication]).await.unwrap();
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    let last = due(&*ledger).await.remove(0);
    for _ in 0..2 {
        ledger.published(std::slice::from_ref(&last.publication)).await.unwrap();
    }
    ledger.published(&[Publication::first("unknown".parse().unwrap())]).await.unwrap();
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert!(due(&*ledger).await.is_empty());
}

pub async fn one_process_at_a_time_holds_the_upkeep(fixture: &dyn Fixture) {
    let ledgers = [open(fixture).await, open(fixture).await];
    let holders = ["first", "second"];
    let hold = async |index: usize, lease| ledgers[index].hold_upkeep(holders[index], lease).await.unwrap();
    for _ in 0..3 {
        assert!(hold(0, LEASE).await);
        assert!(!hold(1, LEASE).await);
        // The holder has kept it meanwhile.
        fixture.advance(LEASE * 3 / 4).await;
    }
    // Only the holder can give it up.
    assert!(!hold(1, Duration::ZERO).await);
    assert!(!hold(1, LEASE).await);
    assert!(!hold(0, Duration::ZERO).await);
    assert!(hold(1, LEASE).await);
    assert!(!hold(0, LEASE).await);
    // A lease beyond its length is not believed: the clock was set back.
    assert!(hold(1, LEASE * 100).await);
    assert!(hold(0, LEASE).await);
}

pub async fn the_upkeep_of_a_dead_process_passes_on_without_a_gap(fixture: &dyn Fixture) {
    let (dead, ledger) = (fixture.open().await, open(fixture).await);
    let lease = Duration::from_millis(1900);
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    claim(&*ledger, &job).await;
    fixture.advance(LEASE - Duration::from_secs(3)).await;
    assert!(dead.ledger.hold_upkeep("first", lease).await.unwrap());
    fixture.kill(dead).await;
    // The other process asks once a second, as upkeep does.
    let mut asked = Vec::new();
    for _ in 0..4 {
        fixture.advance_in_outage(Duration::from_secs(1)).await;
        asked.push(ledger.hold_upkeep("second", lease).await.unwrap());
    }
    assert_eq!(asked, [false, true, true, true]);
    // The lease expired at its time.
    assert_eq!(due(&*ledger).await.len(), 1);
}
