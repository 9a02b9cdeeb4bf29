//! The promises of every ledger.

mod arriving;
mod claiming;
mod clock;
mod counting;
mod dead;
mod ending;
mod publishing;
mod retention;
mod submitting;
mod suspecting;
mod sweeping;
mod watching;

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, poll};

use crate::{Fixture, LEASE, PUBLISH_TIMEOUT, job, jobs, pool, soon};
use queue::driver::{CHECK_AFTER, CHECK_RELEASED_AFTER};
use queue::{
    Attempt, BlobRef, Body, Claim, ClaimRequest, DEAD_RETENTION, DeadFilter, DueJob, Finish, Finished, Forgotten,
    Input, Job, JobCounts, JobError, JobId, JobRecord, JobState, Lease, Ledger, Outcome, Output, PoolName, Publication,
    Purged, Requeued, Submitted, WorkerId,
};

pub use self::arriving::*;
pub use self::claiming::*;
pub use self::clock::*;
pub use self::counting::*;
pub use self::dead::*;
pub use self::ending::*;
pub use self::publishing::*;
pub use self::retention::*;
pub use self::submitting::*;
pub use self::suspecting::*;
pub use self::sweeping::*;
pub use self::watching::*;

/// Makes one test per promise of a ledger; the argument makes a [`Fixture`] for each.
#[macro_export]
macro_rules! ledger_contract {
    ($fixture:expr) => {
        $crate::promises! {
            $fixture,
            ledger,
            a_submitted_job_is_queued_with_every_field_intact
            an_unknown_job_has_no_record
            submitting_twice_is_one_job
            submitting_the_same_id_with_another_pool_or_input_is_a_conflict
            a_job_with_a_confirmed_publication_need_not_be_published_again
            answers_come_in_the_order_of_the_requests
            a_submitted_job_survives_the_death_of_its_process
            a_ledger_beside_its_broker_records_publishes_and_confirms_in_one_call
            a_published_job_is_not_due
            a_published_job_is_due_after_hours_and_counts_as_queued
            a_queued_job_past_its_deadline_expires_without_a_delivery
            a_job_with_an_unconfirmed_publication_is_due_with_its_input
            a_due_job_is_given_to_one_caller_only
            a_due_job_that_is_not_published_is_due_again
            due_returns_no_more_than_its_limit
            a_late_confirmation_does_not_touch_a_later_publication
            one_process_at_a_time_holds_the_upkeep
            the_upkeep_of_a_dead_process_passes_on_without_a_gap
            a_claim_starts_the_first_attempt
            a_live_lease_blocks_other_claims
            a_repeated_claim_gets_the_same_lease
            a_repeated_claim_does_not_take_the_lease_of_another_worker
            a_redelivered_job_is_taken_over_and_run_alone
            a_claim_of_an_unknown_job_opens_it
            a_stale_worker_cannot_overwrite_a_result
            a_stale_worker_cannot_end_anothers_attempt
            a_renewed_lease_holds_longer_and_a_lost_one_is_named
            an_expired_lease_becomes_due_and_its_former_worker_is_rejected
            an_expired_lease_still_finishes_before_another_worker_claims_the_job
            a_redelivered_job_stays_with_a_holder_in_the_roster
            a_redelivered_job_is_due_soon_if_its_holder_does_not_renew
            a_lease_that_expired_in_an_outage_may_still_be_renewed
            a_clock_that_is_set_forward_ends_no_lease
            a_clock_that_is_set_back_delays_no_retry_lease_or_unconfirmed_publication
            a_suspect_that_was_never_begun_is_not_charged_when_its_holder_vanishes
            a_suspect_that_was_begun_is_charged
            begin_reports_a_lost_lease
            a_killer_ends_dead_and_an_innocent_beside_it_stays_claimable
            a_success_keeps_its_output
            a_finish_returns_the_time_at_which_the_job_ended
            a_success_keeps_a_reference_to_its_output
            a_failure_keeps_its_error
            a_repeated_finish_is_recorded_once
            a_retry_waits_until_it_is_due
            a_job_out_of_attempts_is_dead
            a_job_whose_workers_keep_vanishing_is_dead
            a_released_job_is_not_charged_for_the_attempt
            a_job_past_its_deadline_expires_at_its_claim
            a_job_is_cancelled_in_every_open_state
            cancelling_an_unknown_job_returns_no_record
            a_job_cancelled_while_leased_rejects_its_result
            an_ended_job_never_changes
            a_watch_ends_with_the_job
            a_watch_returns_an_ending_that_another_process_wrote
            a_watch_of_an_ended_job_ends_at_once
            a_watch_of_an_unknown_job_is_empty
            each_of_many_watches_returns_the_ending_of_its_own_job
            a_dropped_watch_does_not_disturb_others
            a_watch_does_not_outlive_its_process
            arrivals_names_the_pools_of_new_jobs_from_any_process
            arrivals_names_the_pool_of_a_requeued_job
            arrivals_names_the_pool_of_a_job_that_is_due
            arrivals_come_by_notification_and_not_by_polling
            counts_are_of_open_jobs_by_state_and_of_ended_jobs
            a_due_job_counts_as_retry_until_its_publication_is_confirmed
            every_ending_of_a_job_is_counted_once
            a_deleted_job_stays_counted_as_ended
            counts_of_a_thousand_pools_come_in_one_call_in_order
            purge_deletes_jobs_whose_retention_is_over_and_returns_their_blobs
            purge_deletes_no_more_than_its_limit
            a_dead_job_and_its_blobs_outlive_those_of_a_success
            a_dead_job_stays_for_its_own_retention_if_that_is_longer
            a_requeued_job_that_succeeds_has_the_retention_of_a_success
            every_failed_attempt_is_in_the_history
            a_final_failure_is_in_the_history_and_a_release_or_cancellation_is_not
            a_vanished_worker_is_in_the_history_if_the_attempt_counted
            the_history_is_limited_to_the_last_attempts
            the_input_of_a_job_can_be_read
            the_input_of_a_success_is_deleted_and_still_identifies_it
            dead_jobs_are_listed_by_pool_and_state_the_last_first
            dead_jobs_are_listed_page_by_page
            a_requeued_job_is_due_at_once_with_all_its_attempts
            a_requeued_job_that_dies_again_is_dead_again
            a_requeued_job_can_have_another_input
            a_requeued_job_has_no_deadline
            a_requeue_outdates_every_former_lease
            a_requeued_suspect_stays_one
            only_a_dead_or_failed_job_is_requeued
            a_watch_continues_over_a_requeue
            an_ended_job_is_deleted_on_request_and_its_blobs_are_returned
            only_dead_jobs_of_the_pool_and_state_are_purged
            reading_the_risks_changes_nothing
            the_usage_is_the_mean_size_of_the_records_of_ended_jobs
            the_first_blob_store_is_the_one_of_the_ledger
            a_ledger_has_one_id_in_every_process
            a_sweep_deletes_the_old_blobs_of_jobs_without_a_record_and_no_others
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

async fn finish(ledger: &dyn Ledger, lease: &Lease, outcome: Outcome) -> Option<JobState> {
    ledger.finish(vec![Finish { lease: lease.clone(), outcome }]).await.unwrap()[0].state()
}

async fn get(ledger: &dyn Ledger, job: &Job) -> JobRecord {
    ledger.get(&job.id).await.unwrap().unwrap()
}

/// The numbers of open and ended jobs of [`pool`].
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
