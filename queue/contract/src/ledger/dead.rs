//! The history of attempts, and dead and failed jobs.

use std::collections::BTreeSet;

use super::*;

/// A job that has ended as dead (after one attempt) or failed.
pub(super) async fn ended(fixture: &dyn Fixture, ledger: &dyn Ledger, id: &str, state: JobState) -> Job {
    ended_in(fixture, ledger, Job { max_attempts: 1, ..job(fixture, id) }, state).await
}

pub(super) async fn ended_in(_fixture: &dyn Fixture, ledger: &dyn Ledger, job: Job, state: JobState) -> Job {
    accept(ledger, std::slice::from_ref(&job)).await;
    let lease = claim(ledger, &job).await;
    let outcome = match state {
        JobState::Dead => retry(Duration::ZERO),
        JobState::Failed => Outcome::Failed(error("bad")),
        JobState::Succeeded => success("done"),
        other => panic!("not by finishing: {other:?}"),
    };
    assert_eq!(finish(ledger, &lease, outcome).await, Some(state));
    job
}

fn of(pool: Option<PoolName>, state: JobState) -> DeadFilter {
    DeadFilter { pool, state }
}

pub(super) fn all(state: JobState) -> DeadFilter {
    of(None, state)
}

pub(super) async fn listed(ledger: &dyn Ledger, filter: &DeadFilter) -> Vec<String> {
    let page = ledger.dead(filter, None, 100).await.unwrap();
    assert_eq!(page.next, None);
    page.jobs.into_iter().map(|record| record.id.to_string()).collect()
}

pub(super) async fn requeue(ledger: &dyn Ledger, job: &Job, input: Option<Input>) -> Requeued {
    ledger.requeue(&job.id, input).await.unwrap()
}

fn tried(number: u32, kind: &str) -> (u32, WorkerId, String) {
    (number, WorkerId::new("worker"), kind.to_owned())
}

async fn history(ledger: &dyn Ledger, job: &Job) -> Vec<(u32, WorkerId, String)> {
    let told = |attempt: Attempt| (attempt.number, attempt.worker, attempt.error.kind);
    get(ledger, job).await.history.into_iter().map(told).collect()
}

pub async fn every_failed_attempt_is_in_the_history(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 3, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let mut expected: Vec<Attempt> = Vec::new();
    for number in 1..=3 {
        let worker = WorkerId::new(format!("worker-{number}"));
        let lease = granted(claim_as(&*ledger, worker.as_str(), &job, false).await);
        let started_at = get(&*ledger, &job).await.started_at.unwrap();
        fixture.advance(Duration::from_secs(1)).await;
        let error = error(&format!("größer als gedacht, zum {number}."));
        let before = fixture.now();
        finish(&*ledger, &lease, Outcome::Retry { error: error.clone(), after: Duration::ZERO }).await;
        let found = get(&*open(fixture).await, &job).await.history;
        assert_eq!(found[..found.len() - 1], expected);
        let ended_at = found.last().unwrap().ended_at;
        assert!((before..=fixture.now()).contains(&ended_at) && ended_at > started_at);
        expected.push(Attempt { number, worker, started_at, ended_at, error });
        assert_eq!(found, expected);
        due(&*ledger).await;
    }
    assert_eq!(get(&*ledger, &job).await.state, JobState::Dead);
}

pub async fn a_final_failure_is_in_the_history_and_a_release_or_cancellation_is_not(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let failed = ended(fixture, &*ledger, "failed", JobState::Failed).await;
    assert_eq!(history(&*ledger, &failed).await, [tried(1, "model_error")]);
    let done = ended(fixture, &*ledger, "done", JobState::Succeeded).await;
    assert_eq!(history(&*ledger, &done).await, []);
    let [released, cancelled] = ["released", "cancelled"].map(|id| job(fixture, id));
    accept(&*ledger, &[released.clone(), cancelled.clone()]).await;
    let lease = claim(&*ledger, &released).await;
    finish(&*ledger, &lease, Outcome::Released).await;
    claim(&*ledger, &cancelled).await;
    ledger.cancel(&cancelled.id).await.unwrap();
    for job in [released, cancelled] {
        assert_eq!(history(&*ledger, &job).await, []);
    }
}

pub async fn a_vanished_worker_is_in_the_history_if_the_attempt_counted(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [by_broker, by_lease, by_due] = ["by-broker", "by-lease", "by-due"].map(|id| job(fixture, id));
    accept(&*ledger, &[by_broker.clone(), by_lease.clone(), by_due.clone()]).await;
    for job in [&by_broker, &by_lease, &by_due] {
        claim(&*ledger, job).await;
    }
    granted(claim_as(&*ledger, "other", &by_broker, true).await);
    fixture.advance(LEASE * 2).await;
    granted(claim_as(&*ledger, "other", &by_lease, false).await);
    let given: BTreeSet<_> = due(&*ledger).await.into_iter().map(|due| due.job.id).collect();
    assert!(given.contains(&by_due.id));
    for job in [&by_broker, &by_lease, &by_due] {
        let found = get(&*ledger, job).await.history;
        assert_eq!(history(&*ledger, job).await, [tried(1, "worker_vanished")], "{}", job.id);
        assert!(found[0].ended_at >= found[0].started_at && !found[0].error.message.is_empty());
    }
    // They are suspects now. Their attempts never began, because another job killed their workers.
    granted(claim_as(&*ledger, "third", &by_lease, true).await);
    granted(claim_as(&*ledger, "third", &by_due, false).await);
    granted(claim_as(&*ledger, "fourth", &by_due, true).await);
    for job in [&by_lease, &by_due] {
        assert_eq!(history(&*ledger, job).await.len(), 1, "{}", job.id);
    }
}

pub async fn the_history_is_limited_to_the_last_attempts(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let attempts = u32::try_from(JobRecord::HISTORY_LIMIT).unwrap() + 5;
    let job = Job { max_attempts: attempts, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    for _ in 0..attempts {
        let lease = claim(&*ledger, &job).await;
        finish(&*ledger, &lease, retry(Duration::ZERO)).await;
        due(&*ledger).await;
    }
    let numbers: Vec<u32> = get(&*ledger, &job).await.history.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (6..=attempts).collect::<Vec<_>>());
}

pub async fn the_input_of_a_job_can_be_read(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let inline = Input { media_type: "x/y".to_owned(), body: Body::Inline(vec![0xff, 0x00, 0xc3].into()) };
    let inline = Job { input: inline, ..job(fixture, "inline") };
    let big = Input { media_type: "image/png".to_owned(), body: blob("input/big/1", "ab") };
    let big = Job { input: big, ..job(fixture, "big") };
    accept(&*ledger, &[inline.clone(), big.clone()]).await;
    for job in [inline, big] {
        assert_eq!(ledger.input(&job.id).await.unwrap(), Some(job.input));
    }
    assert_eq!(ledger.input(&"unknown".parse().unwrap()).await.unwrap(), None);
}

pub async fn the_input_of_a_success_is_deleted_and_still_identifies_it(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [inline, mut big, failed] = ["inline", "big", "failed"].map(|id| job(fixture, id));
    big.input.body = blob("input/big/1", "ab");
    for job in [&inline, &big] {
        accept(&*ledger, std::slice::from_ref(job)).await;
        let lease = claim(&*ledger, job).await;
        assert_eq!(ledger.input(&job.id).await.unwrap().as_ref(), Some(&job.input));
        finish(&*ledger, &lease, success("done")).await;
        assert_eq!(ledger.input(&job.id).await.unwrap(), None);
        let answer = ledger.submit(std::slice::from_ref(job)).await.unwrap().remove(0);
        assert!(matches!(answer, Submitted::Existing { publish: None, .. }), "{answer:?}");
        let mut others = [job.clone(), job.clone(), job.clone()];
        others[0].input.body = Body::Inline(Bytes::from_static(b"other"));
        others[1].input.media_type = "image/png".to_owned();
        others[2].input.body = blob("input/big/2", "cd");
        assert_eq!(ledger.submit(&others).await.unwrap(), vec![Submitted::Conflict; 3]);
    }
    // A failed job keeps its input, because it can be requeued.
    ended_in(fixture, &*ledger, failed.clone(), JobState::Failed).await;
    assert_eq!(ledger.input(&failed.id).await.unwrap(), Some(failed.input));
    fixture.advance(inline.retention * 2).await;
    let blobs = ledger.purge(10).await.unwrap().unwrap();
    assert_eq!(blobs.into_iter().map(|blob| blob.key).collect::<Vec<_>>(), ["input/big/1"]);
}

pub async fn dead_jobs_are_listed_by_pool_and_state_the_last_first(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let elsewhere: PoolName = "elsewhere".parse().unwrap();
    for (id, state) in
        [("a", JobState::Dead), ("b", JobState::Failed), ("c", JobState::Dead), ("d", JobState::Succeeded)]
    {
        ended(fixture, &*ledger, id, state).await;
        fixture.advance(Duration::from_secs(1)).await;
    }
    let other = Job { pool: elsewhere.clone(), max_attempts: 1, ..job(fixture, "e") };
    ended_in(fixture, &*ledger, other, JobState::Dead).await;
    accept(&*ledger, &[job(fixture, "open")]).await;
    assert_eq!(listed(&*ledger, &all(JobState::Dead)).await, ["e", "c", "a"]);
    assert_eq!(listed(&*ledger, &all(JobState::Failed)).await, ["b"]);
    assert_eq!(listed(&*ledger, &of(Some(pool()), JobState::Dead)).await, ["c", "a"]);
    assert_eq!(listed(&*ledger, &of(Some(elsewhere), JobState::Dead)).await, ["e"]);
    assert!(listed(&*ledger, &of(Some("nowhere".parse().unwrap()), JobState::Dead)).await.is_empty());
    for state in [JobState::Succeeded, JobState::Queued] {
        assert!(listed(&*ledger, &all(state)).await.is_empty());
    }
    let page = ledger.dead(&of(Some(pool()), JobState::Dead), None, 1).await.unwrap();
    let expected = JobRecord { history: Vec::new(), ..get(&*ledger, &job(fixture, "c")).await };
    assert_eq!(page.jobs, [expected]);
}

pub async fn dead_jobs_are_listed_page_by_page(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    // Some of them end at the same time: paging must neither skip nor repeat them.
    for group in 0..4 {
        for number in 0..3 {
            ended(fixture, &*ledger, &format!("job-{group}-{number}"), JobState::Dead).await;
        }
        fixture.advance(Duration::from_secs(1)).await;
    }
    let expected = listed(&*ledger, &all(JobState::Dead)).await;
    assert_eq!(expected.iter().collect::<BTreeSet<_>>().len(), 12);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = ledger.dead(&all(JobState::Dead), after.as_ref(), 5).await.unwrap();
        assert!(page.jobs.len() <= 5);
        // The position stays valid after its job is deleted.
        if let Some(next) = &page.next {
            assert_eq!(page.jobs.last().map(|job| &job.id), Some(&next.id));
            ledger.forget(&next.id).await.unwrap();
        }
        found.extend(page.jobs.into_iter().map(|record| record.id.to_string()));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(found, expected);
}

pub async fn a_requeued_job_is_due_at_once_with_all_its_attempts(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    for (state, ended_by_now) in [(JobState::Dead, 1), (JobState::Failed, 3)] {
        let job = ended(fixture, &*ledger, state.as_str(), state).await;
        let former = get(&*ledger, &job).await;
        fixture.advance(Duration::from_secs(1)).await;
        assert_eq!(requeue(&*ledger, &job, None).await, Requeued::Queued { replaced: None });
        let record = get(&*ledger, &job).await;
        assert_eq!((record.state, record.attempts, record.finished_at), (JobState::Queued, 0, None));
        assert_eq!((&record.history, &record.error), (&former.history, &former.error));
        assert!(listed(&*ledger, &all(state)).await.is_empty());
        assert_eq!(counts(&*ledger).await, JobCounts { retry: 1, ended: ended_by_now, ..JobCounts::default() });
        let given = due(&*ledger).await.remove(0);
        assert_eq!(given.job, job);
        ledger.published(&[given.publication]).await.unwrap();
        fixture.advance(PUBLISH_TIMEOUT * 2).await;
        assert!(due(&*ledger).await.is_empty());
        assert_eq!(counts(&*ledger).await, JobCounts { queued: 1, ended: ended_by_now, ..JobCounts::default() });
        let answer = claim_as(&*ledger, "worker", &given.job, false).await;
        let Claim::Granted { lease, alone: false } = answer else { panic!("{answer:?}") };
        assert_eq!(lease.attempt, 1);
        assert_eq!(finish(&*ledger, &lease, success("done")).await, Some(JobState::Succeeded));
        let record = get(&*ledger, &job).await;
        assert_eq!((record.state, record.error, record.output), (JobState::Succeeded, None, Some(output("done"))));
        assert_eq!(record.history, former.history);
    }
}

pub async fn a_requeued_job_that_dies_again_is_dead_again(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = ended(fixture, &*ledger, "job", JobState::Dead).await;
    fixture.advance(Duration::from_secs(1)).await;
    requeue(&*ledger, &job, None).await;
    let given = due(&*ledger).await.remove(0);
    let lease = claim(&*ledger, &given.job).await;
    assert_eq!(finish(&*ledger, &lease, retry(Duration::ZERO)).await, Some(JobState::Dead));
    assert_eq!(listed(&*ledger, &all(JobState::Dead)).await, ["job"]);
    assert_eq!(history(&*ledger, &job).await, [tried(1, "model_error"), tried(1, "model_error")]);
    // Its retention begins again.
    fixture.advance(DEAD_RETENTION - Duration::from_millis(500)).await;
    assert_eq!(ledger.purge(10).await.unwrap(), None);
    fixture.advance(Duration::from_secs(1)).await;
    assert_eq!(ledger.purge(10).await.unwrap(), Some(Vec::new()));
    assert_eq!(ledger.get(&job.id).await.unwrap(), None);
    assert!(listed(&*ledger, &all(JobState::Dead)).await.is_empty());
}

pub async fn a_requeued_job_can_have_another_input(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let former = Input { media_type: "image/png".to_owned(), body: blob("input/job/1", "ab") };
    let job = Job { input: former, ..job(fixture, "job") };
    let job = ended_in(fixture, &*ledger, job, JobState::Failed).await;
    let Body::Reference(former) = job.input.body.clone() else { panic!("a reference was given") };
    let edited = Input { media_type: "text/plain".to_owned(), body: Body::Inline("edited".into()) };
    let answer = requeue(&*ledger, &job, Some(edited.clone())).await;
    assert_eq!(answer, Requeued::Queued { replaced: Some(former) });
    assert_eq!(ledger.input(&job.id).await.unwrap(), Some(edited.clone()));
    let given = due(&*ledger).await.remove(0);
    assert_eq!(given.job, Job { input: edited, ..job.clone() });
    // The id now belongs to a job with this input.
    assert_eq!(ledger.submit(std::slice::from_ref(&job)).await.unwrap(), [Submitted::Conflict]);
    let answers = ledger.submit(std::slice::from_ref(&given.job)).await.unwrap();
    assert!(matches!(answers[..], [Submitted::Existing { publish: Some(_), .. }]), "{answers:?}");
}

pub async fn a_requeued_job_has_no_deadline(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let deadline_at = Some(fixture.now() + Duration::from_secs(20));
    let job = Job { deadline_at, max_attempts: 1, ..job(fixture, "job") };
    let job = ended_in(fixture, &*ledger, job, JobState::Dead).await;
    fixture.advance(Duration::from_secs(60)).await;
    requeue(&*ledger, &job, None).await;
    let given = due(&*ledger).await.remove(0);
    assert_eq!(given.job, Job { deadline_at: None, ..job });
    claim(&*ledger, &given.job).await;
}

pub async fn a_requeue_outdates_every_former_lease(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 1, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let former = claim(&*ledger, &job).await;
    finish(&*ledger, &former, retry(Duration::ZERO)).await;
    requeue(&*ledger, &job, None).await;
    assert_eq!(finish(&*ledger, &former, success("late")).await, None);
    ledger.published(&[Publication::first(job.id.clone())]).await.unwrap();
    assert_eq!(due(&*ledger).await.len(), 1, "no former publication confirms this one");
    let lease = claim(&*ledger, &job).await;
    assert!(lease.fence > former.fence);
    assert_eq!(ledger.renew(&[former.clone(), lease], LEASE).await.unwrap(), [false, true]);
    assert_eq!(finish(&*ledger, &former, success("late")).await, None);
}

pub async fn a_requeued_suspect_stays_one(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 1, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    claim(&*ledger, &job).await;
    assert_eq!(claim_as(&*ledger, "other", &job, true).await, Claim::Ended(JobState::Dead));
    assert_eq!(get(&*ledger, &job).await.error.unwrap().kind, "worker_vanished");
    assert_eq!(requeue(&*ledger, &job, None).await, Requeued::Queued { replaced: None });
    due(&*ledger).await;
    let answer = claim_as(&*ledger, "other", &job, false).await;
    let Claim::Granted { lease, alone: true } = answer else { panic!("{answer:?}") };
    assert_eq!(lease.attempt, 1);
    // The attempt is not charged until it begins, as before.
    assert!(matches!(claim_as(&*ledger, "third", &job, true).await, Claim::Granted { alone: true, .. }));
}

pub async fn only_a_dead_or_failed_job_is_requeued(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let done = ended(fixture, &*ledger, "done", JobState::Succeeded).await;
    let [queued, leased, cancelled] = ["queued", "leased", "cancelled"].map(|id| job(fixture, id));
    accept(&*ledger, &[queued.clone(), leased.clone(), cancelled.clone()]).await;
    claim(&*ledger, &leased).await;
    ledger.cancel(&cancelled.id).await.unwrap();
    for (job, state) in [
        (done, JobState::Succeeded),
        (queued, JobState::Queued),
        (leased, JobState::Leased),
        (cancelled, JobState::Cancelled),
    ] {
        let before = get(&*ledger, &job).await;
        let edited = Input { media_type: "text/plain".to_owned(), body: Body::Inline("edited".into()) };
        assert_eq!(requeue(&*ledger, &job, Some(edited)).await, Requeued::NotDead(state));
        assert_eq!(get(&*ledger, &job).await, before);
        let kept = (state != JobState::Succeeded).then_some(job.input);
        assert_eq!(ledger.input(&job.id).await.unwrap(), kept);
    }
    assert!(due(&*ledger).await.is_empty());
    assert_eq!(ledger.requeue(&"unknown".parse().unwrap(), None).await.unwrap(), Requeued::Unknown);
}

pub async fn a_watch_continues_over_a_requeue(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let job = ended(fixture, &*one, "job", JobState::Dead).await;
    requeue(&*one, &job, None).await;
    let mut watch = one.watch(&job.id).await.unwrap();
    assert_eq!(soon(watch.next()).await.unwrap().unwrap().state, JobState::Queued);
    let lease = claim(&*another, &job).await;
    // The watch may read the record after the first change or after both. Both are correct.
    finish(&*another, &lease, retry(Duration::ZERO)).await;
    requeue(&*another, &job, None).await;
    let lease = claim(&*another, &job).await;
    finish(&*another, &lease, success("done")).await;
    let mut last = None;
    while let Some(record) = soon(watch.next()).await {
        last = Some(record.unwrap().state);
    }
    assert!(last.is_some_and(JobState::has_ended), "{last:?}");
}

pub async fn an_ended_job_is_deleted_on_request_and_its_blobs_are_returned(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [input, result] = [("input/job/1", "ab"), ("output/job/1", "cd")].map(|(key, digest)| blob(key, digest));
    let job = Job { input: Input { media_type: "x/y".to_owned(), body: input.clone() }, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    assert_eq!(ledger.forget(&job.id).await.unwrap(), Forgotten::Retained(JobState::Queued));
    let lease = claim(&*ledger, &job).await;
    assert_eq!(ledger.forget(&job.id).await.unwrap(), Forgotten::Retained(JobState::Leased));
    assert!(ledger.begin(&lease).await.unwrap());
    finish(&*ledger, &lease, Outcome::Succeeded(Output { media_type: "x/y".to_owned(), body: result.clone() })).await;
    let Forgotten::Forgotten(blobs) = ledger.forget(&job.id).await.unwrap() else { panic!("it has ended") };
    let named: BTreeSet<_> = blobs.into_iter().map(|blob| blob.key).collect();
    assert_eq!(named, ["input/job/1", "output/job/1"].map(str::to_owned).into());
    assert_eq!((ledger.get(&job.id).await.unwrap(), ledger.input(&job.id).await.unwrap()), (None, None));
    assert_eq!(ledger.forget(&job.id).await.unwrap(), Forgotten::Unknown);
    // A message of a cancelled job may still wait in the broker, so its record is not deleted.
    let cancelled = Job { id: "cancelled".parse().unwrap(), ..job.clone() };
    accept(&*ledger, std::slice::from_ref(&cancelled)).await;
    ledger.cancel(&cancelled.id).await.unwrap();
    assert_eq!(ledger.forget(&cancelled.id).await.unwrap(), Forgotten::Retained(JobState::Cancelled));
    assert_eq!(claim_as(&*ledger, "worker", &cancelled, false).await, Claim::Ended(JobState::Cancelled));
    // The id is free, and nothing of the former job is left.
    let dead = ended(fixture, &*ledger, "dead", JobState::Dead).await;
    ledger.forget(&dead.id).await.unwrap();
    accept(&*ledger, &[dead.clone(), job]).await;
    assert_eq!(history(&*ledger, &dead).await, []);
    assert_eq!(claim(&*ledger, &dead).await.attempt, 1);
}

pub async fn only_dead_jobs_of_the_pool_and_state_are_purged(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let elsewhere: PoolName = "elsewhere".parse().unwrap();
    for id in ["a", "b", "c"] {
        let input = Input { media_type: "x/y".to_owned(), body: blob(&format!("input/{id}"), "ab") };
        let job = Job { input, max_attempts: 1, ..job(fixture, id) };
        ended_in(fixture, &*ledger, job, JobState::Dead).await;
    }
    let other = Job { pool: elsewhere.clone(), max_attempts: 1, ..job(fixture, "other") };
    ended_in(fixture, &*ledger, other, JobState::Dead).await;
    ended(fixture, &*ledger, "failed", JobState::Failed).await;
    let done = ended(fixture, &*ledger, "done", JobState::Succeeded).await;
    accept(&*ledger, &[job(fixture, "open")]).await;
    let filter = of(Some(pool()), JobState::Dead);
    let (first, second) = (ledger.purge_dead(&filter, 2).await.unwrap(), ledger.purge_dead(&filter, 2).await.unwrap());
    assert_eq!((first.jobs, second.jobs), (2, 1));
    let named: BTreeSet<_> = first.blobs.into_iter().chain(second.blobs).map(|blob| blob.key).collect();
    assert_eq!(named, ["input/a", "input/b", "input/c"].map(str::to_owned).into());
    assert_eq!(ledger.purge_dead(&filter, 2).await.unwrap(), Purged::default());
    assert_eq!(listed(&*ledger, &all(JobState::Dead)).await, ["other"]);
    assert_eq!(ledger.purge_dead(&all(JobState::Succeeded), 10).await.unwrap(), Purged::default());
    assert_eq!(ledger.purge_dead(&all(JobState::Failed), 10).await.unwrap().jobs, 1);
    assert_eq!(get(&*ledger, &done).await.state, JobState::Succeeded);
    assert_eq!(counts(&*ledger).await.queued, 1);
}

pub async fn reading_the_risks_changes_nothing(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = ended(fixture, &*ledger, "job", JobState::Dead).await;
    let before = get(&*ledger, &job).await;
    for risk in ledger.risks().await.unwrap() {
        for text in [risk.subject, risk.setting, risk.found, risk.why, risk.advice] {
            assert!(!text.is_empty());
        }
    }
    assert_eq!(get(&*ledger, &job).await, before);
}

pub async fn the_usage_is_the_mean_size_of_the_records_of_ended_jobs(fixture: &dyn Fixture) {
    const BYTES: usize = 20_000;
    let ledger = open(fixture).await;
    let large = |id: &str| {
        let input = Input { media_type: "x/y".to_owned(), body: Body::Inline(vec![b'i'; BYTES].into()) };
        Job { input, ..job(fixture, id) }
    };
    // The input of a job that succeeds is deleted, that of a failed job stays.
    accept(&*ledger, &(0..20).map(|number| large(&format!("open-{number}"))).collect::<Vec<_>>()).await;
    assert_eq!(ledger.usage().await.unwrap(), None);
    for number in 0..50 {
        ended_in(fixture, &*ledger, large(&format!("failed-{number}")), JobState::Failed).await;
        ended_in(fixture, &*ledger, large(&format!("done-{number}")), JobState::Succeeded).await;
    }
    let before = counts(&*ledger).await;
    let usage = ledger.usage().await.unwrap().unwrap();
    let mean = BYTES as u64 / 2;
    assert!((mean..mean * 3 / 2).contains(&usage.record_bytes), "{usage:?}");
    assert!(usage.capacity_bytes > usage.record_bytes * 200, "{usage:?}");
    for text in [usage.subject, usage.setting, usage.limit] {
        assert!(!text.is_empty());
    }
    assert_eq!(counts(&*ledger).await, before);
}

pub async fn the_first_blob_store_is_the_one_of_the_ledger(fixture: &dyn Fixture) {
    let (first, second) = (open(fixture).await, open(fixture).await);
    assert_eq!(first.blob_store(None).await.unwrap(), None);
    for found in [Some("a"), Some("b"), None] {
        for ledger in [&first, &second] {
            assert_eq!(ledger.blob_store(found).await.unwrap().as_deref(), Some("a"));
        }
    }
}
