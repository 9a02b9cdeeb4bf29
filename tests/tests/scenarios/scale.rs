//! A pool that scales from zero to many workers and back.

use millrace_tests::{System, until};

const YAML: &str = "
pools:
  echo:
    model: 'echo:100ms:4'
    scale:
      {trigger: {value: '10'}, max: 3, cooldown: 2s, polling_interval: 1s, sync_interval: 1s, stabilization_window: 2s}
  rare:
    model: 'echo:100ms:4'
    # Only the push stream can start its first worker within the test.
    scale: {trigger: {value: '10'}, max: 1, polling_interval: 1h}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_an_empty_pool_starts_a_worker_and_the_pool_returns_to_zero() {
    let system = System::new(YAML).unwrap();
    let up = system.up().await.unwrap();
    let backend = system.backend().await.unwrap();
    let pools = ["echo".parse().unwrap()];
    assert!(backend.roster.workers(&pools).await.unwrap().concat().is_empty());

    let id = up.accepted("echo", "text/plain", b"wake up".to_vec()).await.unwrap();
    until("a worker process has started", async || {
        Ok((!backend.roster.workers(&pools).await?.concat().is_empty()).then_some(()))
    })
    .await
    .unwrap();
    up.process.prints("pool echo: 0 → 1 workers").await.unwrap();
    assert_eq!(up.ended(&id).await.unwrap()["state"], "succeeded");

    let (line, _) = up.process.prints_after(0, "→ 0 workers").await.unwrap();
    until("no worker process is left", async || {
        Ok(backend.roster.workers(&pools).await?.concat().is_empty().then_some(()))
    })
    .await
    .unwrap();

    // A burst: the backlog needs more workers than the limit of 3.
    let mut ids = Vec::new();
    for number in 0..200 {
        ids.push(up.accepted("echo", "text/plain", format!("job {number}").into_bytes()).await.unwrap());
    }
    up.process.prints_after(line + 1, "→ 3 workers").await.unwrap();
    for id in &ids {
        assert_eq!(up.ended(id).await.unwrap()["state"], "succeeded");
    }
    up.process.prints_after(line + 1, "→ 0 workers").await.unwrap();

    up.process.terminate().unwrap();
    let (status, output) = up.process.ended().await.unwrap();
    assert!(status.success(), "{status}\n{output}");
    assert!(!output.contains("ERROR"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_worker_starts_before_the_next_poll() {
    let system = System::new(YAML).unwrap();
    let up = system.up().await.unwrap();
    let id = up.accepted("rare", "text/plain", b"wake up".to_vec()).await.unwrap();
    up.process.prints("pool rare: 0 → 1 workers (").await.unwrap();
    assert_eq!(up.ended(&id).await.unwrap()["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_end_when_the_process_that_started_them_is_killed() {
    let system = System::new(YAML).unwrap();
    let up = system.up().await.unwrap();
    let backend = system.backend().await.unwrap();
    let pools = ["echo".parse().unwrap()];
    up.accepted("echo", "text/plain", b"wake up".to_vec()).await.unwrap();
    up.process.prints(" ready ").await.unwrap();
    up.process.kill().await.unwrap();
    until("the worker has left the roster", async || {
        Ok(backend.roster.workers(&pools).await?.concat().is_empty().then_some(()))
    })
    .await
    .unwrap();
}
