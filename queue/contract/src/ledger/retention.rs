//! How long the records of ended jobs are kept.

use std::collections::BTreeSet;

use super::dead::{all, ended, ended_in, listed, requeue};
use super::*;

pub async fn purge_deletes_jobs_whose_retention_is_over_and_returns_their_blobs(fixture: &dyn Fixture) {
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
    assert_eq!(get(&*ledger, &kept).await.state, JobState::Cancelled);
    assert_eq!(get(&*ledger, &running).await.state, JobState::Queued);
    assert_eq!(ledger.purge(100).await.unwrap(), None);
    assert_eq!(ledger.submit(&[over]).await.unwrap(), [Submitted::New]);
}

pub async fn purge_deletes_no_more_than_its_limit(fixture: &dyn Fixture) {
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

/// Otherwise the list of dead jobs would forget them before an operator has looked.
pub async fn a_dead_job_and_its_blobs_outlive_those_of_a_success(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let mut jobs = Vec::new();
    for (id, state) in [("done", JobState::Succeeded), ("dead", JobState::Dead), ("failed", JobState::Failed)] {
        let input = Input { media_type: "x/y".to_owned(), body: blob(&format!("input/{id}"), "ab") };
        let job = Job { input, max_attempts: 1, ..job(fixture, id) };
        jobs.push(ended_in(fixture, &*ledger, job, state).await);
    }
    // Its last worker disappeared, and the next claim ends it.
    let killer = Job { max_attempts: 1, ..job(fixture, "killer") };
    accept(&*ledger, std::slice::from_ref(&killer)).await;
    claim(&*ledger, &killer).await;
    assert_eq!(claim_as(&*ledger, "other", &killer, true).await, Claim::Ended(JobState::Dead));
    let keys = |blobs: Option<Vec<BlobRef>>| blobs.unwrap().into_iter().map(|blob| blob.key).collect::<BTreeSet<_>>();
    fixture.advance(killer.retention).await;
    assert_eq!(keys(ledger.purge(10).await.unwrap()), ["input/done".to_owned()].into());
    fixture.advance(DEAD_RETENTION - killer.retention - Duration::from_secs(60)).await;
    assert_eq!(ledger.purge(10).await.unwrap(), None);
    assert_eq!(listed(&*ledger, &all(JobState::Dead)).await, ["killer", "dead"]);
    assert_eq!(ledger.input(&jobs[2].id).await.unwrap().as_ref(), Some(&jobs[2].input));
    fixture.advance(Duration::from_secs(60)).await;
    assert_eq!(keys(ledger.purge(10).await.unwrap()), ["input/dead", "input/failed"].map(str::to_owned).into());
    for job in jobs.iter().chain([&killer]) {
        assert_eq!(ledger.get(&job.id).await.unwrap(), None);
    }
}

pub async fn a_dead_job_stays_for_its_own_retention_if_that_is_longer(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = Job { max_attempts: 1, retention: DEAD_RETENTION * 2, ..job(fixture, "job") };
    let job = ended_in(fixture, &*ledger, job, JobState::Dead).await;
    fixture.advance(job.retention - Duration::from_secs(60)).await;
    assert_eq!(ledger.purge(10).await.unwrap(), None);
    fixture.advance(Duration::from_secs(60)).await;
    assert_eq!(ledger.purge(10).await.unwrap(), Some(Vec::new()));
}

pub async fn a_requeued_job_that_succeeds_has_the_retention_of_a_success(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = ended(fixture, &*ledger, "job", JobState::Dead).await;
    fixture.advance(job.retention * 2).await;
    requeue(&*ledger, &job, None).await;
    let given = due(&*ledger).await.remove(0);
    let lease = claim(&*ledger, &given.job).await;
    assert_eq!(finish(&*ledger, &lease, success("done")).await, Some(JobState::Succeeded));
    fixture.advance(job.retention - Duration::from_secs(60)).await;
    assert_eq!(ledger.purge(10).await.unwrap(), None);
    fixture.advance(Duration::from_secs(60)).await;
    assert_eq!(ledger.purge(10).await.unwrap(), Some(Vec::new()));
}
