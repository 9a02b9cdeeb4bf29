//! A worker that is stopped while a batch runs.

use std::time::{Duration, Instant};

use millrace_tests::{System, until};
use queue::{JobId, JobState};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_during_a_batch_finishes_the_batch_and_requeues_the_rest() {
    let system = System::new("pools: {echo: {model: 'echo:2s:4'}}").unwrap();
    let gateway = system.gateway().await.unwrap();
    let mut ids: Vec<JobId> = Vec::new();
    for number in 0..12 {
        let id = gateway.accepted("echo", "text/plain", format!("job {number}").into_bytes()).await.unwrap();
        ids.push(id.parse().unwrap());
    }
    let worker = system.worker("echo").await.unwrap();
    let backend = system.backend().await.unwrap();
    let pool = "echo".parse().unwrap();
    // When the results of the first batch are in the ledger, the second batch runs already.
    let before = until("the first batch has ended", async || {
        let mut succeeded = 0;
        for id in &ids {
            let record = backend.ledger.get(id).await?;
            succeeded += usize::from(record.is_some_and(|record| record.state == JobState::Succeeded));
        }
        Ok((succeeded > 0).then_some(succeeded))
    })
    .await
    .unwrap();

    let stopped = Instant::now();
    worker.terminate().unwrap();
    let (status, output) = worker.ended().await.unwrap();
    assert!(status.success(), "{status}\n{output}");
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());

    let mut states = Vec::new();
    for id in &ids {
        let record = backend.ledger.get(id).await.unwrap().unwrap();
        states.push((record.state, record.attempts));
    }
    let finished = states.iter().filter(|state| **state == (JobState::Succeeded, 1)).count();
    let requeued = states.iter().filter(|state| **state == (JobState::Queued, 0)).count();
    assert!(finished > before && finished <= 8, "{before}: {states:?}\n{output}");
    assert_eq!(finished + requeued, 12, "{states:?}\n{output}");
    let depth = backend.broker.gauge().await.unwrap().depths(std::slice::from_ref(&pool)).await.remove(0).unwrap();
    assert_eq!((depth.waiting(), depth.in_flight), (requeued as u64, Some(0)));
    assert!(backend.roster.workers(std::slice::from_ref(&pool)).await.unwrap().concat().is_empty());

    // The requeued jobs are complete: the next worker runs them.
    let _next = system.worker("echo").await.unwrap();
    for id in &ids {
        assert_eq!(gateway.ended(id.as_str()).await.unwrap()["state"], "succeeded");
    }
}
