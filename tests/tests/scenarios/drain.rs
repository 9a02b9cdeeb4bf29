//! A worker is told to stop in the middle of a batch.

use std::time::{Duration, Instant};

use millrace_tests::{System, until};
use queue::{JobId, JobState};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_mid_batch_finishes_the_batch_and_gives_the_rest_back() {
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
    // The results of the first batch are written while the second one, taken from what was waiting, runs already.
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

    let told = Instant::now();
    worker.terminate().unwrap();
    let (status, output) = worker.ended().await.unwrap();
    assert!(status.success(), "{status}\n{output}");
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());

    let mut states = Vec::new();
    for id in &ids {
        let record = backend.ledger.get(id).await.unwrap().unwrap();
        states.push((record.state, record.attempts));
    }
    let finished = states.iter().filter(|state| **state == (JobState::Succeeded, 1)).count();
    let given_back = states.iter().filter(|state| **state == (JobState::Queued, 0)).count();
    assert!(finished > before && finished <= 8, "{before}: {states:?}\n{output}");
    assert_eq!(finished + given_back, 12, "{states:?}\n{output}");
    let depth = backend.broker.gauge().await.unwrap().depths(std::slice::from_ref(&pool)).await.remove(0).unwrap();
    assert_eq!((depth.waiting(), depth.in_flight), (given_back as u64, Some(0)));
    assert!(backend.roster.workers(std::slice::from_ref(&pool)).await.unwrap().concat().is_empty());

    // What was given back is whole: the next worker runs it.
    let _next = system.worker("echo").await.unwrap();
    for id in &ids {
        assert_eq!(gateway.ended(id.as_str()).await.unwrap()["state"], "succeeded");
    }
}
