//! What is open, and what is over.

use super::*;

pub async fn open_jobs_counts_what_has_not_ended(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let jobs = jobs(fixture, 4);
    accept(&*ledger, &jobs).await;
    let count = async || ledger.open_jobs(&pool()).await.unwrap();
    assert_eq!(count().await, OpenJobs { queued: 4, leased: 0, retry: 0 });
    let mut leases = Vec::new();
    for job in &jobs[..3] {
        leases.push(claim(&*ledger, job).await);
    }
    assert_eq!(count().await, OpenJobs { queued: 1, leased: 3, retry: 0 });
    finish(&*ledger, &leases[0], retry(LEASE * 100)).await;
    finish(&*ledger, &leases[1], success("done")).await;
    assert_eq!(count().await, OpenJobs { queued: 1, leased: 1, retry: 1 });
    // A lease that has run out is still work to be done.
    fixture.advance(LEASE * 2).await;
    assert_eq!(count().await, OpenJobs { queued: 1, leased: 1, retry: 1 });
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
    assert_eq!(ledger.open_jobs(&pool()).await.unwrap(), OpenJobs { queued: 0, leased: 0, retry: 1 });
    ledger.published(&[given.publication]).await.unwrap();
    assert_eq!(ledger.open_jobs(&pool()).await.unwrap(), OpenJobs { queued: 1, leased: 0, retry: 0 });
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
