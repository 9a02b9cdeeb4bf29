//! What every ledger promises.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, poll};

use super::{Fixture, LEASE, PUBLISH_TIMEOUT, job, jobs, pool, soon};
use crate::{
    BlobRef, Body, Claim, ClaimRequest, DueJob, Finish, Finished, Job, JobError, JobId, JobRecord, Lease, Ledger,
    OpenJobs, Outcome, Output, Publication, State, Submitted, WorkerId,
};

/// Makes one test per promise of a ledger; the argument makes a [`Fixture`] for each.
#[macro_export]
macro_rules! ledger_contract {
    ($fixture:expr) => {
        $crate::promises! {
            $fixture,
            ledger,
            a_submitted_job_is_queued_with_every_field_intact
            an_unknown_job_is_nothing
            submitting_twice_is_one_job
            submitting_the_same_id_with_another_pool_or_input_is_a_conflict
            a_job_known_to_be_published_need_not_be_published_again
            answers_come_in_the_order_of_the_questions
            a_submitted_job_survives_the_death_of_its_process
            a_published_job_is_not_due
            a_job_whose_publication_nobody_confirmed_is_due_with_its_input
            a_due_job_is_given_to_one_caller_only
            a_due_job_that_nobody_publishes_is_due_again
            due_gives_no_more_than_its_limit
            a_late_confirmation_does_not_touch_a_later_publication
            a_claim_starts_the_first_attempt
            a_live_lease_holds_off_other_claims
            a_redelivered_job_is_taken_over_and_run_alone
            a_claim_of_an_unknown_job_opens_it
            a_stale_worker_cannot_overwrite_a_result
            a_stale_worker_cannot_end_anothers_attempt
            a_renewed_lease_holds_longer_and_a_lost_one_is_named
            an_expired_lease_becomes_due_and_its_holder_is_refused
            an_expired_lease_still_finishes_while_nobody_took_over
            a_success_keeps_its_output
            a_success_keeps_a_reference_to_its_output
            a_failure_keeps_its_error
            a_finish_said_twice_is_recorded_once
            a_retry_waits_until_it_is_due
            a_job_out_of_attempts_is_dead
            a_job_whose_workers_keep_vanishing_is_dead
            a_released_job_has_not_been_attempted
            a_job_past_its_deadline_expires_at_its_claim
            a_job_is_cancelled_in_every_open_state
            cancelling_an_unknown_job_is_nothing
            a_job_cancelled_while_leased_takes_no_result
            what_has_ended_never_changes
            a_watch_ends_with_the_job
            a_watch_sees_an_ending_that_another_process_wrote
            a_watch_of_an_ended_job_ends_at_once
            a_watch_of_an_unknown_job_is_empty
            many_watchers_each_see_their_own_job_end
            a_watch_that_was_dropped_disturbs_nobody
            open_jobs_counts_what_is_with_the_ledger
            open_jobs_counts_what_was_given_out_until_it_is_published
            purge_forgets_what_is_over_and_names_its_blobs
            purge_forgets_no_more_than_its_limit
        }
    };
}

async fn open(fixture: &dyn Fixture) -> std::sync::Arc<dyn Ledger> {
    fixture.open().await.ledger
}

/// Submits jobs and confirms their publication.
async fn accept(ledger: &dyn Ledger, jobs: &[Job]) {
    assert!(ledger.submit(jobs).await.unwrap().iter().all(|answer| *answer == Submitted::New));
    let publications: Vec<_> = jobs.iter().map(|job| Publication::first(job.id.clone())).collect();
    ledger.published(&publications).await.unwrap();
}

async fn claim_as(ledger: &dyn Ledger, worker: &str, job: &Job, redelivered: bool) -> Claim {
    let request = ClaimRequest { job: job.clone(), redelivered };
    ledger.claim(&WorkerId::new(worker), vec![request], LEASE).await.unwrap().remove(0)
}

fn granted(claim: Claim) -> Lease {
    match claim {
        Claim::Go { lease, .. } => lease,
        other => panic!("not granted: {other:?}"),
    }
}

async fn claim(ledger: &dyn Ledger, job: &Job) -> Lease {
    granted(claim_as(ledger, "worker", job, false).await)
}

async fn finish(ledger: &dyn Ledger, lease: &Lease, outcome: Outcome) -> Finished {
    ledger.finish(vec![Finish { lease: lease.clone(), outcome }]).await.unwrap().remove(0)
}

async fn get(ledger: &dyn Ledger, job: &Job) -> JobRecord {
    ledger.get(&job.id).await.unwrap().unwrap()
}

async fn due(ledger: &dyn Ledger) -> Vec<DueJob> {
    ledger.due(100).await.unwrap()
}

fn success(text: &str) -> Outcome {
    Outcome::Succeeded(output(text))
}

fn output(text: &str) -> Output {
    Output { media_type: "text/plain".to_owned(), body: Body::Inline(Bytes::from(text.to_owned())) }
}

fn error(message: &str) -> JobError {
    JobError { kind: "model_error".to_owned(), message: message.to_owned() }
}

fn retry(after: Duration) -> Outcome {
    Outcome::Retry { error: error("again"), after }
}

fn blob(key: &str, digest: &str) -> Body {
    Body::Reference(BlobRef { key: key.to_owned(), size_bytes: 1 << 20, sha256: digest.repeat(32) })
}

pub async fn a_submitted_job_is_queued_with_every_field_intact(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let mut job = job(fixture, "A.b_c~d:e-1");
    job.class = crate::Class::Batch;
    job.deadline_at = Some(fixture.now() + Duration::from_secs(60));
    job.max_attempts = 7;
    assert_eq!(ledger.submit(std::slice::from_ref(&job)).await.unwrap(), [Submitted::New]);
    let expected = JobRecord {
        id: job.id.clone(),
        pool: pool(),
        class: job.class,
        state: State::Queued,
        attempts: 0,
        max_attempts: 7,
        created_at: job.created_at,
        deadline_at: job.deadline_at,
        started_at: None,
        finished_at: None,
        worker: None,
        error: None,
        output: None,
    };
    assert_eq!(get(&*ledger, &job).await, expected);
    assert_eq!(get(&*open(fixture).await, &job).await, expected);
}

pub async fn an_unknown_job_is_nothing(fixture: &dyn Fixture) {
    assert_eq!(open(fixture).await.get(&"unknown".parse().unwrap()).await.unwrap(), None);
}

pub async fn submitting_twice_is_one_job(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let job = job(fixture, "job");
    one.submit(std::slice::from_ref(&job)).await.unwrap();
    let record = get(&*one, &job).await;
    // What does not belong to its identity may differ: the first submission counts.
    let again = Job { max_attempts: 9, created_at: job.created_at + Duration::from_secs(1), ..job.clone() };
    let publish = Some(Publication::first(job.id.clone()));
    let known = Submitted::Known { record: Box::new(record.clone()), publish };
    assert_eq!(another.submit(std::slice::from_ref(&again)).await.unwrap(), [known.clone()]);
    assert_eq!(get(&*one, &job).await, record);

    let fresh = Job { id: "fresh".parse().unwrap(), ..job };
    let answers = one.submit(&[fresh.clone(), fresh]).await.unwrap();
    assert!(matches!(&answers[..], [Submitted::New, Submitted::Known { .. }]), "{answers:?}");
}

pub async fn submitting_the_same_id_with_another_pool_or_input_is_a_conflict(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let first = job(fixture, "job");
    let mut by_reference = job(fixture, "big");
    by_reference.input.body = blob("input/big/1", "ab");
    accept(&*ledger, &[first.clone(), by_reference.clone()]).await;
    let mut others = vec![first.clone(), first.clone(), first.clone(), by_reference.clone()];
    others[0].pool = "bert".parse().unwrap();
    others[1].input.body = Body::Inline(Bytes::from_static(b"other"));
    others[2].input.media_type = "image/png".to_owned();
    others[3].input.body = blob("input/big/2", "cd");
    assert_eq!(ledger.submit(&others).await.unwrap(), vec![Submitted::Conflict; 4]);
    assert_eq!(get(&*ledger, &first).await.pool, first.pool);

    // Each submission puts its own object; the bytes are what counts.
    by_reference.input.body = blob("input/big/2", "ab");
    let answers = ledger.submit(&[by_reference]).await.unwrap();
    assert!(matches!(&answers[..], [Submitted::Known { .. }]), "{answers:?}");
}

pub async fn a_job_known_to_be_published_need_not_be_published_again(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let publish = |answers: Vec<Submitted>| match answers.into_iter().next() {
        Some(Submitted::Known { publish, .. }) => publish,
        other => panic!("not known: {other:?}"),
    };
    assert_eq!(publish(ledger.submit(std::slice::from_ref(&job)).await.unwrap()), None);
    let lease = claim(&*ledger, &job).await;
    assert_eq!(publish(ledger.submit(std::slice::from_ref(&job)).await.unwrap()), None);
    finish(&*ledger, &lease, success("done")).await;
    assert_eq!(publish(ledger.submit(&[job]).await.unwrap()), None);
}

pub async fn answers_come_in_the_order_of_the_questions(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [a, b, c] = ["a", "b", "c"].map(|id| job(fixture, id));
    accept(&*ledger, std::slice::from_ref(&b)).await;
    let answers = ledger.submit(&[c.clone(), b.clone(), a.clone()]).await.unwrap();
    assert!(matches!(&answers[..], [Submitted::New, Submitted::Known { .. }, Submitted::New]), "{answers:?}");

    ledger.cancel(&b.id).await.unwrap();
    let requests = [&a, &b, &c].map(|job| ClaimRequest { job: job.clone(), redelivered: false });
    let claims = ledger.claim(&WorkerId::new("worker"), requests.to_vec(), LEASE).await.unwrap();
    let [Claim::Go { lease: first, .. }, Claim::Ended(State::Cancelled), Claim::Go { lease: third, .. }] = &claims[..]
    else {
        panic!("{claims:?}")
    };
    assert_eq!((&first.id, &third.id), (&a.id, &c.id));

    let lost = Lease { id: b.id, fence: 1, attempt: 1 };
    let leases = [third.clone(), lost.clone(), first.clone()];
    assert_eq!(ledger.renew(&leases, LEASE).await.unwrap(), [true, false, true]);
    let finishes = [(third, success("c")), (&lost, success("b")), (first, Outcome::Failed(error("a")))];
    let finishes = finishes.map(|(lease, outcome)| Finish { lease: lease.clone(), outcome });
    assert_eq!(
        ledger.finish(finishes.to_vec()).await.unwrap(),
        [Finished::Recorded(State::Succeeded), Finished::LeaseLost, Finished::Recorded(State::Failed)]
    );
}

pub async fn a_submitted_job_survives_the_death_of_its_process(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let jobs = jobs(fixture, 3);
    accept(&*process.ledger, &jobs[..2]).await;
    let lease = claim(&*process.ledger, &jobs[0]).await;
    finish(&*process.ledger, &lease, success("done")).await;
    process.ledger.submit(&jobs[2..]).await.unwrap();
    fixture.kill(process).await;

    let ledger = open(fixture).await;
    assert_eq!(get(&*ledger, &jobs[0]).await.output, Some(output("done")));
    assert_eq!(get(&*ledger, &jobs[1]).await.state, State::Queued);
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    let due = due(&*ledger).await;
    assert_eq!(due.iter().map(|due| &due.job).collect::<Vec<_>>(), [&jobs[2]]);
}

pub async fn a_published_job_is_not_due(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    accept(&*ledger, &jobs(fixture, 3)).await;
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert!(due(&*ledger).await.is_empty());
}

pub async fn a_job_whose_publication_nobody_confirmed_is_due_with_its_input(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let mut submitted = job(fixture, "job");
    submitted.trace_parent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
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
    assert_eq!(get(&*ledger, &submitted).await.state, State::Queued);
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

pub async fn a_due_job_that_nobody_publishes_is_due_again(fixture: &dyn Fixture) {
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

pub async fn due_gives_no_more_than_its_limit(fixture: &dyn Fixture) {
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

pub async fn a_claim_starts_the_first_attempt(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let before = fixture.now();
    let answer = claim_as(&*ledger, "worker-1", &job, false).await;
    let Claim::Go { lease, alone: false } = answer else { panic!("{answer:?}") };
    assert_eq!((&lease.id, lease.attempt), (&job.id, 1));
    assert!(lease.fence >= 1);
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.attempts), (State::Leased, 1));
    assert_eq!(record.worker, Some(WorkerId::new("worker-1")));
    assert!(record.started_at.is_some_and(|started| (before..=fixture.now()).contains(&started)));
}

pub async fn a_live_lease_holds_off_other_claims(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let job = job(fixture, "job");
    accept(&*one, std::slice::from_ref(&job)).await;
    let lease = claim(&*one, &job).await;
    assert_eq!(claim_as(&*another, "other", &job, false).await, Claim::Held);
    assert_eq!(get(&*one, &job).await.worker, Some(WorkerId::new("worker")));
    assert_eq!(finish(&*one, &lease, success("done")).await, Finished::Recorded(State::Succeeded));
    assert_eq!(claim_as(&*another, "other", &job, false).await, Claim::Ended(State::Succeeded));
}

pub async fn a_redelivered_job_is_taken_over_and_run_alone(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let former = claim(&*ledger, &job).await;
    let answer = claim_as(&*ledger, "other", &job, true).await;
    let Claim::Go { lease, alone: true } = answer else { panic!("{answer:?}") };
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
    assert_eq!((record.state, record.pool, record.created_at), (State::Leased, job.pool.clone(), job.created_at));
    // Its input was kept: it can be published again.
    finish(&*ledger, &lease, retry(Duration::ZERO)).await;
    assert_eq!(due(&*ledger).await.remove(0).job, job);
}

pub async fn a_stale_worker_cannot_overwrite_a_result(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let stale = claim(&*ledger, &job).await;
    let lease = granted(claim_as(&*ledger, "other", &job, true).await);
    assert_eq!(finish(&*ledger, &lease, success("right")).await, Finished::Recorded(State::Succeeded));
    assert_eq!(finish(&*ledger, &stale, success("wrong")).await, Finished::LeaseLost);
    assert_eq!(get(&*ledger, &job).await.output, Some(output("right")));
}

pub async fn a_stale_worker_cannot_end_anothers_attempt(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let stale = claim(&*ledger, &job).await;
    let lease = granted(claim_as(&*ledger, "other", &job, true).await);
    for outcome in [success("wrong"), Outcome::Failed(error("wrong")), retry(Duration::ZERO), Outcome::Released] {
        assert_eq!(finish(&*ledger, &stale, outcome).await, Finished::LeaseLost);
    }
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.worker, record.error), (State::Leased, Some(WorkerId::new("other")), None));
    assert_eq!(finish(&*ledger, &lease, success("right")).await, Finished::Recorded(State::Succeeded));
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

pub async fn an_expired_lease_becomes_due_and_its_holder_is_refused(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    assert!(due(&*ledger).await.is_empty());
    fixture.advance(LEASE * 2).await;
    assert_eq!(due(&*ledger).await.remove(0).job, job);
    assert_eq!(get(&*ledger, &job).await.state, State::Queued);
    assert_eq!(finish(&*ledger, &lease, success("late")).await, Finished::LeaseLost);
    let answer = claim_as(&*ledger, "other", &job, false).await;
    assert!(matches!(answer, Claim::Go { lease: Lease { attempt: 2, .. }, alone: true }), "{answer:?}");
}

pub async fn an_expired_lease_still_finishes_while_nobody_took_over(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [slow, taken] = ["slow", "taken"].map(|id| job(fixture, id));
    accept(&*ledger, &[slow.clone(), taken.clone()]).await;
    let leases = [claim(&*ledger, &slow).await, claim(&*ledger, &taken).await];
    fixture.advance(LEASE * 2).await;
    granted(claim_as(&*ledger, "other", &taken, false).await);
    assert_eq!(finish(&*ledger, &leases[0], success("late")).await, Finished::Recorded(State::Succeeded));
    assert_eq!(finish(&*ledger, &leases[1], success("late")).await, Finished::LeaseLost);
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
        assert_eq!(finished, Finished::Recorded(State::Succeeded));
        let record = get(&*open(fixture).await, &job).await;
        assert_eq!((record.state, record.output, record.error), (State::Succeeded, Some(output), None));
        assert!(record.finished_at.is_some_and(|finished| (before..=fixture.now()).contains(&finished)));
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
    assert_eq!(finished, Finished::Recorded(State::Failed));
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.error, record.output), (State::Failed, Some(error("größer als gedacht")), None));
    assert_eq!(claim_as(&*ledger, "other", &job, true).await, Claim::Ended(State::Failed));
}

pub async fn a_finish_said_twice_is_recorded_once(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    let twice = ["first", "second"].map(|text| Finish { lease: lease.clone(), outcome: success(text) });
    let answers = ledger.finish(twice.to_vec()).await.unwrap();
    assert_eq!(answers, [Finished::Recorded(State::Succeeded), Finished::LeaseLost]);
    assert_eq!(get(&*ledger, &job).await.output, Some(output("first")));
}

pub async fn a_retry_waits_until_it_is_due(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    let after = Duration::from_secs(20);
    assert_eq!(finish(&*ledger, &lease, retry(after)).await, Finished::Recorded(State::Retry));
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.attempts, record.error), (State::Retry, 1, Some(error("again"))));
    for redelivered in [false, true] {
        assert_eq!(claim_as(&*ledger, "other", &job, redelivered).await, Claim::Held);
    }
    fixture.advance(after / 2).await;
    assert!(due(&*ledger).await.is_empty());
    fixture.advance(after).await;
    let given = due(&*ledger).await.remove(0);
    assert_eq!(given.job, job);
    ledger.published(&[given.publication]).await.unwrap();
    let answer = claim_as(&*ledger, "other", &given.job, false).await;
    let Claim::Go { lease: second, alone: false } = answer else { panic!("{answer:?}") };
    assert_eq!(second.attempt, 2);
    assert!(second.fence > lease.fence);
    assert_eq!(finish(&*ledger, &second, success("done")).await, Finished::Recorded(State::Succeeded));
    assert_eq!(get(&*ledger, &job).await.error, None);
}

pub async fn a_job_out_of_attempts_is_dead(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 2, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let first = claim(&*ledger, &job).await;
    assert_eq!(finish(&*ledger, &first, retry(Duration::ZERO)).await, Finished::Recorded(State::Retry));
    due(&*ledger).await;
    let second = claim(&*ledger, &job).await;
    assert_eq!(finish(&*ledger, &second, retry(Duration::ZERO)).await, Finished::Recorded(State::Dead));
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.attempts, record.error), (State::Dead, 2, Some(error("again"))));
    assert!(due(&*ledger).await.is_empty());
}

pub async fn a_job_whose_workers_keep_vanishing_is_dead(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [by_broker, by_lease] = ["by-broker", "by-lease"].map(|id| Job { max_attempts: 2, ..job(fixture, id) });
    accept(&*ledger, &[by_broker.clone(), by_lease.clone()]).await;
    for attempt in 1..=2 {
        for (job, redelivered) in [(&by_broker, true), (&by_lease, false)] {
            assert_eq!(granted(claim_as(&*ledger, "doomed", job, redelivered).await).attempt, attempt);
        }
        fixture.advance(LEASE * 2).await;
    }
    assert_eq!(claim_as(&*ledger, "other", &by_broker, true).await, Claim::Ended(State::Dead));
    assert_eq!(due(&*ledger).await.len(), 1);
    assert_eq!(claim_as(&*ledger, "other", &by_lease, false).await, Claim::Ended(State::Dead));
    for job in [by_broker, by_lease] {
        let record = get(&*ledger, &job).await;
        assert_eq!((record.state, record.attempts), (State::Dead, 2));
        assert!(record.error.is_some() && record.finished_at.is_some());
    }
}

pub async fn a_released_job_has_not_been_attempted(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 1, ..job(fixture, "job") };
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let mut fence = 0;
    for _ in 0..3 {
        let answer = claim_as(&*ledger, "worker", &job, true).await;
        let Claim::Go { lease, alone: false } = answer else { panic!("{answer:?}") };
        assert_eq!(lease.attempt, 1);
        assert!(lease.fence > fence);
        fence = lease.fence;
        assert_eq!(finish(&*ledger, &lease, Outcome::Released).await, Finished::Recorded(State::Queued));
        let record = get(&*ledger, &job).await;
        assert_eq!((record.state, record.attempts), (State::Queued, 0));
        assert_eq!(finish(&*ledger, &lease, success("late")).await, Finished::LeaseLost);
    }
    // Its delivery went back to the broker: nobody has to publish it.
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert!(due(&*ledger).await.is_empty());
}

pub async fn a_job_past_its_deadline_expires_at_its_claim(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let deadline_at = Some(fixture.now() + Duration::from_secs(20));
    let [in_time, late, unknown] = ["in-time", "late", "unknown"].map(|id| Job { deadline_at, ..job(fixture, id) });
    accept(&*ledger, &[in_time.clone(), late.clone()]).await;
    let lease = claim(&*ledger, &in_time).await;
    fixture.advance(Duration::from_secs(21)).await;
    for job in [&late, &unknown] {
        assert_eq!(claim_as(&*ledger, "worker", job, false).await, Claim::Ended(State::Expired));
        let record = get(&*ledger, job).await;
        assert_eq!((record.state, record.attempts), (State::Expired, 0));
        assert!(record.error.is_some() && record.finished_at.is_some());
    }
    // It was started in time.
    assert_eq!(finish(&*ledger, &lease, success("done")).await, Finished::Recorded(State::Succeeded));
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
        assert_eq!((record.id.clone(), record.state), (job.id.clone(), State::Cancelled));
        assert!(record.finished_at.is_some());
        assert_eq!(get(&*ledger, &job).await, record);
        assert_eq!(claim_as(&*ledger, "other", &job, true).await, Claim::Ended(State::Cancelled));
    }
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert!(due(&*ledger).await.is_empty());
}

pub async fn cancelling_an_unknown_job_is_nothing(fixture: &dyn Fixture) {
    let (ledger, id) = (open(fixture).await, "unknown".parse().unwrap());
    assert_eq!(ledger.cancel(&id).await.unwrap(), None);
    assert_eq!(ledger.get(&id).await.unwrap(), None);
}

pub async fn a_job_cancelled_while_leased_takes_no_result(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    ledger.cancel(&job.id).await.unwrap();
    assert_eq!(ledger.renew(std::slice::from_ref(&lease), LEASE).await.unwrap(), [false]);
    assert_eq!(finish(&*ledger, &lease, success("late")).await, Finished::LeaseLost);
    let record = get(&*ledger, &job).await;
    assert_eq!((record.state, record.output), (State::Cancelled, None));
}

pub async fn what_has_ended_never_changes(fixture: &dyn Fixture) {
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

    let expected = [State::Succeeded, State::Failed, State::Cancelled, State::Dead, State::Expired];
    for ((job, state), lease) in all.iter().zip(expected).zip(leases.iter().chain(&leases)) {
        let record = get(&*ledger, job).await;
        assert_eq!(record.state, state);
        for redelivered in [false, true] {
            assert_eq!(claim_as(&*ledger, "other", job, redelivered).await, Claim::Ended(state));
        }
        let lease = Lease { id: job.id.clone(), ..lease.clone() };
        for outcome in [success("wrong"), Outcome::Failed(error("wrong")), retry(Duration::ZERO), Outcome::Released] {
            assert_eq!(finish(&*ledger, &lease, outcome).await, Finished::LeaseLost);
        }
        assert_eq!(ledger.renew(&[lease], LEASE).await.unwrap(), [false]);
        assert_eq!(ledger.cancel(&job.id).await.unwrap(), Some(record.clone()));
        ledger.published(&[Publication::first(job.id.clone())]).await.unwrap();
        let answers = ledger.submit(std::slice::from_ref(job)).await.unwrap();
        assert_eq!(answers, [Submitted::Known { record: Box::new(record.clone()), publish: None }]);
        fixture.advance(PUBLISH_TIMEOUT * 2).await;
        assert!(due(&*ledger).await.is_empty());
        assert_eq!(get(&*ledger, job).await, record);
    }
}

pub async fn a_watch_ends_with_the_job(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let mut watch = ledger.watch(&job.id).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().state, State::Queued);
    assert!(poll!(watch.next()).is_pending());
    let lease = claim(&*ledger, &job).await;
    finish(&*ledger, &lease, success("done")).await;
    let seen: Vec<JobRecord> = soon(watch.map(|record| record.unwrap()).collect()).await;
    assert_eq!(seen.last(), Some(&get(&*ledger, &job).await));
}

pub async fn a_watch_sees_an_ending_that_another_process_wrote(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let jobs = jobs(fixture, 100);
    accept(&*one, &jobs).await;
    let rounds = async {
        for job in &jobs {
            let watch = one.watch(&job.id).await.unwrap();
            another.cancel(&job.id).await.unwrap();
            let last = watch.map(|record| record.unwrap()).collect::<Vec<_>>().await.pop();
            assert_eq!(last.unwrap().state, State::Cancelled);
        }
    };
    soon(rounds).await;
}

pub async fn a_watch_of_an_ended_job_ends_at_once(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    ledger.cancel(&job.id).await.unwrap();
    let watch = ledger.watch(&job.id).await.unwrap();
    let seen: Vec<JobRecord> = soon(watch.map(|record| record.unwrap()).collect()).await;
    assert_eq!(seen, [get(&*ledger, &job).await]);
}

pub async fn a_watch_of_an_unknown_job_is_empty(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let mut watch = ledger.watch(&"unknown".parse().unwrap()).await.unwrap();
    assert!(soon(watch.next()).await.is_none());
}

pub async fn many_watchers_each_see_their_own_job_end(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let jobs = jobs(fixture, 50);
    accept(&*one, &jobs).await;
    let mut watches = Vec::new();
    for job in jobs.iter().chain(&jobs) {
        watches.push(one.watch(&job.id).await.unwrap());
    }
    for job in jobs.iter().rev() {
        let lease = claim(&*another, job).await;
        finish(&*another, &lease, success(job.id.as_str())).await;
    }
    for (job, watch) in jobs.iter().chain(&jobs).zip(watches) {
        let last = soon(watch.map(|record| record.unwrap()).collect::<Vec<_>>()).await.pop().unwrap();
        assert_eq!((&last.id, last.output), (&job.id, Some(output(job.id.as_str()))));
    }
}

pub async fn a_watch_that_was_dropped_disturbs_nobody(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let dropped = ledger.watch(&job.id).await.unwrap();
    let kept = ledger.watch(&job.id).await.unwrap();
    drop(dropped);
    ledger.cancel(&job.id).await.unwrap();
    let last = soon(kept.map(|record| record.unwrap()).collect::<Vec<_>>()).await.pop().unwrap();
    assert_eq!(last.state, State::Cancelled);
}

pub async fn open_jobs_counts_what_is_with_the_ledger(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let jobs = jobs(fixture, 4);
    accept(&*ledger, &jobs).await;
    let count = async || ledger.open_jobs(&pool()).await.unwrap();
    assert_eq!(count().await, OpenJobs::default());
    let mut leases = Vec::new();
    for job in &jobs[..3] {
        leases.push(claim(&*ledger, job).await);
    }
    assert_eq!(count().await, OpenJobs { leased: 3, retry: 0 });
    finish(&*ledger, &leases[0], retry(LEASE * 100)).await;
    finish(&*ledger, &leases[1], success("done")).await;
    assert_eq!(count().await, OpenJobs { leased: 1, retry: 1 });
    // A lease that has run out is still work to be done.
    fixture.advance(LEASE * 2).await;
    assert_eq!(count().await, OpenJobs { leased: 1, retry: 1 });
    assert_eq!(ledger.open_jobs(&"bert".parse().unwrap()).await.unwrap(), OpenJobs::default());
    for job in &jobs {
        ledger.cancel(&job.id).await.unwrap();
    }
    assert_eq!(count().await, OpenJobs::default());
}

/// Otherwise a pool could go to zero while whoever took the job to publish it has died.
pub async fn open_jobs_counts_what_was_given_out_until_it_is_published(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    finish(&*ledger, &lease, retry(Duration::ZERO)).await;
    let given = due(&*ledger).await.remove(0);
    assert_eq!(ledger.open_jobs(&pool()).await.unwrap(), OpenJobs { leased: 0, retry: 1 });
    ledger.published(&[given.publication]).await.unwrap();
    assert_eq!(ledger.open_jobs(&pool()).await.unwrap(), OpenJobs::default());
}

pub async fn purge_forgets_what_is_over_and_names_its_blobs(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let retention = Duration::from_secs(100);
    let [mut over, kept, running] = ["over", "kept", "running"].map(|id| Job { retention, ..job(fixture, id) });
    over.input.body = blob("input/over/1", "ab");
    accept(&*ledger, &[over.clone(), kept.clone(), running.clone()]).await;
    let lease = claim(&*ledger, &over).await;
    let output = Output { media_type: "image/png".to_owned(), body: blob("output/over/1", "cd") };
    finish(&*ledger, &lease, Outcome::Succeeded(output)).await;
    assert_eq!(ledger.purge(100).await.unwrap(), None);
    fixture.advance(retention / 2).await;
    ledger.cancel(&kept.id).await.unwrap();
    fixture.advance(retention * 3 / 4).await;

    let blobs = ledger.purge(100).await.unwrap().unwrap();
    let mut keys: Vec<_> = blobs.into_iter().map(|blob| blob.key).collect();
    keys.sort();
    assert_eq!(keys, ["input/over/1", "output/over/1"]);
    assert_eq!(ledger.get(&over.id).await.unwrap(), None);
    assert_eq!(get(&*ledger, &kept).await.state, State::Cancelled);
    assert_eq!(get(&*ledger, &running).await.state, State::Queued);
    assert_eq!(ledger.purge(100).await.unwrap(), None);
    assert_eq!(ledger.submit(&[over]).await.unwrap(), [Submitted::New]);
}

pub async fn purge_forgets_no_more_than_its_limit(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let jobs: Vec<_> =
        jobs(fixture, 5).into_iter().map(|job| Job { retention: Duration::from_secs(1), ..job }).collect();
    accept(&*ledger, &jobs).await;
    for job in &jobs {
        ledger.cancel(&job.id).await.unwrap();
    }
    fixture.advance(Duration::from_secs(2)).await;
    let mut left = Vec::new();
    while ledger.purge(2).await.unwrap().is_some() {
        let mut known = 0;
        for job in &jobs {
            known += usize::from(ledger.get(&job.id).await.unwrap().is_some());
        }
        left.push(known);
    }
    assert_eq!(left, [3, 1, 0]);
}
