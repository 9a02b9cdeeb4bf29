//! What every ledger promises.

mod arriving;
mod claiming;
mod counting;
mod dead;
mod ending;
mod publishing;
mod submitting;
mod suspecting;
mod watching;

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, poll};

use crate::{Fixture, LEASE, PUBLISH_TIMEOUT, job, jobs, pool, soon};
use queue::{
    Attempt, BlobRef, Body, Claim, ClaimRequest, DeadFilter, DueJob, Finish, Finished, Forgotten, Input, Job,
    JobCounts, JobError, JobId, JobRecord, JobState, Lease, Ledger, Outcome, Output, PoolName, Publication, Purged,
    Requeued, Submitted, WorkerId,
};

pub use self::arriving::*;
pub use self::claiming::*;
pub use self::counting::*;
pub use self::dead::*;
pub use self::ending::*;
pub use self::publishing::*;
pub use self::submitting::*;
pub use self::suspecting::*;
pub use self::watching::*;

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
            a_claim_made_again_is_given_the_same_lease
            a_claim_made_again_takes_nothing_from_another
            a_redelivered_job_is_taken_over_and_run_alone
            a_claim_of_an_unknown_job_opens_it
            a_stale_worker_cannot_overwrite_a_result
            a_stale_worker_cannot_end_anothers_attempt
            a_renewed_lease_holds_longer_and_a_lost_one_is_named
            an_expired_lease_becomes_due_and_its_holder_is_refused
            an_expired_lease_still_finishes_while_nobody_took_over
            a_suspect_that_was_never_begun_is_not_charged_when_its_holder_vanishes
            a_suspect_that_was_begun_is_charged
            begin_says_when_the_lease_is_lost
            a_killer_ends_dead_and_an_innocent_beside_it_stays_claimable
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
            a_watch_does_not_outlive_its_process
            arrivals_names_the_pools_of_new_jobs_whoever_submits_them
            arrivals_names_the_pool_of_a_requeued_job
            arrivals_names_the_pool_of_a_job_that_is_due
            arrivals_come_without_waiting_for_the_next_look
            counts_are_of_what_is_open_and_of_what_has_ended
            what_was_given_out_counts_as_retry_until_it_is_published
            whatever_way_a_job_ends_it_is_counted_once_each_time
            what_is_forgotten_stays_counted_as_ended
            counts_of_a_thousand_pools_come_in_one_call_in_order
            purge_forgets_what_is_over_and_names_its_blobs
            purge_forgets_no_more_than_its_limit
            every_failed_attempt_is_remembered
            what_failed_for_good_is_remembered_and_what_did_not_fail_is_not
            a_holder_that_vanished_is_remembered_where_the_attempt_counted
            the_last_attempts_are_kept_and_no_more
            the_input_of_a_job_can_be_read
            dead_jobs_are_listed_by_pool_and_state_the_last_first
            dead_jobs_are_listed_page_by_page
            a_requeued_job_is_due_at_once_with_all_its_attempts
            a_requeued_job_that_dies_again_is_dead_again
            a_requeued_job_takes_another_input
            a_requeued_job_has_no_deadline
            a_requeue_outdates_every_former_lease
            a_requeued_suspect_stays_one
            only_a_dead_or_failed_job_is_requeued
            a_watch_goes_on_over_a_requeue
            an_ended_job_is_forgotten_on_request_and_its_blobs_are_named
            dead_jobs_are_purged_by_pool_and_state_and_nothing_else_is
            a_look_for_risks_changes_nothing
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
    let request = ClaimRequest::new(job.clone(), redelivered);
    ledger.claim(&WorkerId::new(worker), vec![request], LEASE).await.unwrap().remove(0)
}

fn granted(claim: Claim) -> Lease {
    match claim {
        Claim::Granted { lease, .. } => lease,
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

/// How many jobs of [`pool`] are open and have ended.
async fn counts(ledger: &dyn Ledger) -> JobCounts {
    let counts = ledger.counts(&[pool()]).await.unwrap();
    assert_eq!(counts.len(), 1);
    counts[0]
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
    Body::Reference(BlobRef {
        key: key.to_owned(),
        size_bytes: Some(1 << 20),
        sha256: Some(digest.repeat(32)),
        is_borrowed: false,
    })
}
