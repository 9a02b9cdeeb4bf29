//! The ends of attempts and of jobs.

use super::*;

/// The record as in every answer except the answer of `get`.
fn without_history(record: JobRecord) -> JobRecord {
    JobRecord { history: Vec::new(), ..record }
}

pub async fn a_success_keeps_its_output(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    for (id, bytes) in [("empty", Vec::new()), ("small", vec![0xff, 0x00, 0xc3]), ("large", vec![7; 200 * 1024])] {
        let job = job(fixture, id);
        accept(&*ledger, std::slice::from_ref(&job)).await;
        let lease = claim(&*ledger, &job).await;
        let output = Output { media_type: "application/octet-stream".to_owned(), body: Body::Inline(bytes.into()) };
        let before = fixture.now();
        let finished = finish(&*ledger, &lease, Outcome::Succeeded(output.clone())).await;
        assert_eq!(finished, Some(JobState::Succeeded));
        let record = get(&*open(fixture).await, &job).await;
        assert_eq!((record.state, record.output, record.error), (JobState::Succeeded, Some(output), None));
        assert!(record.finished_at.is_some_and(|finished| (before..=fixture.now()).contains(&finished)));
    }
}

pub async fn a_finish_returns_the_time_at_which_the_job_ended(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let outcomes = [success("done"), Outcome::Failed(error("no")), retry(Duration::ZERO), Outcome::Released];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let job = job(fixture, &format!("job-{number}"));
        accept(&*ledger, std::slice::from_ref(&job)).await;
        let lease = claim(&*ledger, &job).await;
        let finished = ledger.finish(vec![Finish { lease, outcome }]).await.unwrap().remove(0);
        let JobRecord { state, finished_at, .. } = get(&*ledger, &job).await;
        assert_eq!(finished, Finished::Recorded { state, finished_at });
        assert_eq!(finished_at.is_some(), state.has_ended());
    }
}

pub async fn a_success_keeps_a_reference_to_its_output(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    let output = Output { media_type: "image/png".to_owned(), body: blob("output/job/1", "ab") };
    finish(&*ledger, &lease, Outcome::Succeeded(output.clone())).await;
    assert_eq!(get(&*ledger, &job).await.output, Some(output));
}

pub async fn a_failure_keeps_its_error(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    let finished = finish(&*ledger, &lease, Outcome::Failed(error("größer als gedacht"))).await;
    assert_eq!(finished, Some(JobState::Failed));
    let record = get(&*ledger, &job).await;
    assert_eq!(
        (record.state, record.error, record.output),
        (JobState::Failed, Some(error("größer als gedacht")), None)
    );
    assert_eq!(claim_as(&*ledger, "other", &job, true).await, Claim::Ended(JobState::Failed));
}

pub async fn a_repeated_finish_is_recorded_once(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    let twice = ["first", "second"].map(|text| Finish { lease: lease.clone(), outcome: success(text) });
    let answers = ledger.finish(twice.to_vec()).await.unwrap();
    assert_eq!(answers.iter().map(Finished::state).collect::<Vec<_>>(), [Some(JobState::Succeeded), None]);
    assert_eq!(get(&*ledger, &job).await.output, Some(output("first")));
}

pub async fn a_retry_waits_until_it_is_due(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    let after = Duration::from_secs(20);
    assert_eq!(finish(&*ledger, &lease, retry(after)).await, Some(JobState::Retry));
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.attempts, record.error), (JobState::Retry, 1, Some(error("again"))));
    for redelivered in [false, true] {
        assert_eq!(claim_as(&*ledger, "other", &job, redelivered).await, Claim::HeldElsewhere);
    }
    fixture.advance(after / 2).await;
    assert!(due(&*ledger).await.is_empty());
    fixture.advance(after).await;
    let given = due(&*ledger).await.remove(0);
    assert_eq!(given.job, job);
    ledger.published(&[given.publication]).await.unwrap();
    let answer = claim_as(&*ledger, "other", &given.job, false).await;
    let Claim::Granted { lease: second, alone: false } = answer else { panic!("{answer:?}") };
    assert_eq!(second.attempt, 2);
    assert!(second.fence > lease.fence);
    assert_eq!(finish(&*ledger, &second, success("done")).await, Some(JobState::Succeeded));
    assert_eq!(get(&*ledger, &job).await.error, None);
}

pub async fn a_job_out_of_attempts_is_dead(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 2, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let first = claim(&*ledger, &job).await;
    assert_eq!(finish(&*ledger, &first, retry(Duration::ZERO)).await, Some(JobState::Retry));
    due(&*ledger).await;
    let second = claim(&*ledger, &job).await;
    assert_eq!(finish(&*ledger, &second, retry(Duration::ZERO)).await, Some(JobState::Dead));
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.attempts, record.error), (JobState::Dead, 2, Some(error("again"))));
    assert!(due(&*ledger).await.is_empty());
}

pub async fn a_job_whose_workers_keep_vanishing_is_dead(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [by_broker, by_lease] = ["by-broker", "by-lease"].map(|id| Job { max_attempts: 2, ..job(fixture, id) });
    accept(&*ledger, &[by_broker.clone(), by_lease.clone()]).await;
    for attempt in 1..=2 {
        for (job, redelivered) in [(&by_broker, true), (&by_lease, false)] {
            let lease = granted(claim_as(&*ledger, "doomed", job, redelivered).await);
            assert_eq!(lease.attempt, attempt);
            assert!(ledger.begin(&lease).await.unwrap());
        }
        fixture.advance(LEASE * 2).await;
    }
    assert_eq!(claim_as(&*ledger, "other", &by_broker, true).await, Claim::Ended(JobState::Dead));
    assert_eq!(due(&*ledger).await.len(), 1);
    assert_eq!(claim_as(&*ledger, "other", &by_lease, false).await, Claim::Ended(JobState::Dead));
    for job in [by_broker, by_lease] {
        let record = get(&*ledger, &job).await;
        assert_eq!((record.state, record.attempts), (JobState::Dead, 2));
        assert!(record.error.is_some() && record.finished_at.is_some());
    }
}

pub async fn a_released_job_is_not_charged_for_the_attempt(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 1, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let mut fence = 0;
    for _ in 0..3 {
        let answer = claim_as(&*ledger, "worker", &job, true).await;
        let Claim::Granted { lease, alone: false } = answer else { panic!("{answer:?}") };
        assert_eq!(lease.attempt, 1);
        assert!(lease.fence > fence);
        fence = lease.fence;
        assert_eq!(finish(&*ledger, &lease, Outcome::Released).await, Some(JobState::Queued));
        let record = get(&*ledger, &job).await;
        assert_eq!((record.state, record.attempts), (JobState::Queued, 0));
        assert_eq!(finish(&*ledger, &lease, success("late")).await, None);
    }
    // Its delivery was requeued, so it need not be published.
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert!(due(&*ledger).await.is_empty());
    assert_eq!(counts(&*ledger).await, JobCounts { queued: 1, ..JobCounts::default() });
    // Another worker may have received that delivery before, and may have acknowledged it.
    fixture.advance(CHECK_RELEASED_AFTER).await;
    assert_eq!(due(&*ledger).await.remove(0).job, job);
}

pub async fn a_job_past_its_deadline_expires_at_its_claim(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let deadline_at = Some(fixture.now() + Duration::from_secs(20));
    let [in_time, late, unknown] = ["in-time", "late", "unknown"].map(|id| Job { deadline_at, ..job(fixture, id) });
    accept(&*ledger, &[in_time.clone(), late.clone()]).await;
    let lease = claim(&*ledger, &in_time).await;
    fixture.advance(Duration::from_secs(21)).await;
    for job in [&late, &unknown] {
        assert_eq!(claim_as(&*ledger, "worker", job, false).await, Claim::Ended(JobState::Expired));
        let record = get(&*ledger, job).await;
        assert_eq!((record.state, record.attempts), (JobState::Expired, 0));
        assert!(record.error.is_some() && record.finished_at.is_some());
    }
    // It was started in time.
    assert_eq!(finish(&*ledger, &lease, success("done")).await, Some(JobState::Succeeded));
}

pub async fn a_job_is_cancelled_in_every_open_state(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [queued, leased, waiting] = ["queued", "leased", "retry"].map(|id| job(fixture, id));
    ledger.submit(&[queued.clone(), leased.clone(), waiting.clone()]).await.unwrap();
    claim(&*ledger, &leased).await;
    let lease = claim(&*ledger, &waiting).await;
    finish(&*ledger, &lease, retry(Duration::ZERO)).await;
    for job in [queued, leased, waiting] {
        let record = ledger.cancel(&job.id).await.unwrap().unwrap();
        assert_eq!((record.id.clone(), record.state), (job.id.clone(), JobState::Cancelled));
        assert!(record.finished_at.is_some());
        assert_eq!(without_history(get(&*ledger, &job).await), record);
        assert_eq!(claim_as(&*ledger, "other", &job, true).await, Claim::Ended(JobState::Cancelled));
    }
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert!(due(&*ledger).await.is_empty());
}

pub async fn cancelling_an_unknown_job_returns_no_record(fixture: &dyn Fixture) {
    let (ledger, id) = (open(fixture).await, "unknown".parse().unwrap());
    assert_eq!(ledger.cancel(&id).await.unwrap(), None);
    assert_eq!(ledger.get(&id).await.unwrap(), None);
}

pub async fn a_job_cancelled_while_leased_rejects_its_result(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    ledger.cancel(&job.id).await.unwrap();
    assert_eq!(ledger.renew(std::slice::from_ref(&lease), LEASE).await.unwrap(), [false]);
    assert_eq!(finish(&*ledger, &lease, success("late")).await, None);
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.output), (JobState::Cancelled, None));
}

pub async fn an_ended_job_never_changes(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let deadline_at = Some(fixture.now() + Duration::from_secs(5));
    let [done, failed, cancelled, dead] =
        ["done", "failed", "cancelled", "dead"].map(|id| Job { max_attempts: 1, ..job(fixture, id) });
    let expired = Job { deadline_at, ..job(fixture, "expired") };
    let all = [done, failed, cancelled, dead, expired];
    accept(&*ledger, &all).await;
    let mut leases = Vec::new();
    for job in &all[..4] {
        leases.push(claim(&*ledger, job).await);
    }
    finish(&*ledger, &leases[0], success("done")).await;
    finish(&*ledger, &leases[1], Outcome::Failed(error("bad"))).await;
    ledger.cancel(&all[2].id).await.unwrap();
    finish(&*ledger, &leases[3], retry(Duration::ZERO)).await;
    fixture.advance(Duration::from_secs(6)).await;
    claim_as(&*ledger, "worker", &all[4], false).await;

    let expected = [JobState::Succeeded, JobState::Failed, JobState::Cancelled, JobState::Dead, JobState::Expired];
    for ((job, state), lease) in all.iter().zip(expected).zip(leases.iter().chain(&leases)) {
        let record = get(&*ledger, job).await;
        assert_eq!(record.state, state);
        for redelivered in [false, true] {
            assert_eq!(claim_as(&*ledger, "other", job, redelivered).await, Claim::Ended(state));
        }
        let lease = Lease { id: job.id.clone(), ..lease.clone() };
        for outcome in [success("wrong"), Outcome::Failed(error("wrong")), retry(Duration::ZERO), Outcome::Released] {
            assert_eq!(finish(&*ledger, &lease, outcome).await, None);
        }
        assert_eq!(ledger.renew(&[lease], LEASE).await.unwrap(), [false]);
        let expected = without_history(record.clone());
        assert_eq!(ledger.cancel(&job.id).await.unwrap(), Some(expected.clone()));
        ledger.published(&[Publication::first(job.id.clone())]).await.unwrap();
        let answers = ledger.submit(std::slice::from_ref(job)).await.unwrap();
        assert_eq!(answers, [Submitted::Existing { record: Box::new(expected), publish: None }]);
        fixture.advance(PUBLISH_TIMEOUT * 2).await;
        assert!(due(&*ledger).await.is_empty());
        assert_eq!(get(&*ledger, job).await, record);
    }
}
