//! A worker is told to stop in the middle of a batch.

use std::time::{Duration, Instant};

use millrace_tests::{System, until};
use queue::{JobId, State};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_mid_batch_finishes_the_batch_and_gives_the_rest_back() {
    let yaml = "{telemetry: {level: 'info,millrace_worker=debug'}, pools: {echo: {model: 'echo:2s:4'}}}";
    let system = System::new(yaml).unwrap();
    let gateway = system.gateway().await.unwrap();
    let mut ids: Vec<JobId> = Vec::new();
    for number in 0..12 {
        let id = gateway.accepted("echo", "text/plain", format!("job {number}").into_bytes()).await.unwrap();
        ids.push(id.parse().unwrap());
    }
    // The worker receives two batches: one runs, the other waits for the device.
    let worker = system.worker("echo").await.unwrap();
    let backend = system.backend().await.unwrap();
    let pool = "echo".parse().unwrap();
    until("two batches are leased", async || Ok((backend.ledger.open_jobs(&pool).await?.leased == 8).then_some(())))
        .await
        .unwrap();

    // Whatever was prepared when the device fell free makes the first batch.
    let begins = worker.says("a batch begins").await.unwrap();
    let items = begins.split("items=").nth(1).and_then(|text| text.split(' ').next()).unwrap();
    let items: usize = items.parse().unwrap();
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
    let finished = states.iter().filter(|state| **state == (State::Succeeded, 1)).count();
    let given_back = states.iter().filter(|state| **state == (State::Queued, 0)).count();
    assert_eq!((finished, given_back), (items, 12 - items), "{states:?}\n{output}");
    let depth = backend.broker.gauge().await.unwrap().depth(&pool).await.unwrap();
    assert_eq!((depth.waiting(), depth.in_flight), (given_back as u64, Some(0)));
    assert!(backend.roster.workers(&pool).await.unwrap().is_empty());

    // What was given back is whole: the next worker runs it.
    let _next = system.worker("echo").await.unwrap();
    for id in &ids {
        assert_eq!(gateway.ended(id.as_str()).await.unwrap()["state"], "succeeded");
    }
}
