//! Explanations of answers.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_last_answers_are_explained_with_the_reading_and_the_rule() {
    let (system, scaler, mut keda) = running().await;
    let (status, empty) = scaler.admin("/explain/echo").await.unwrap();
    assert_eq!((status.as_u16(), empty.as_str()), (200, r#"{"pool":"echo","decisions":[]}"#));
    let (status, unknown) = scaler.admin("/explain/nosuch").await.unwrap();
    assert_eq!((status.as_u16(), unknown.trim()), (404, "pool: \"nosuch\" is not a pool of this scaler"));

    let backend = system.backend().await.unwrap();
    publish(&backend, "echo", 7).await;
    keda.until_value(&object("echo"), 7.0).await;
    let fast = with("echo", &[("mode", "latency"), ("latency", "2s"), ("maxWorkers", "3")]);
    assert_eq!(keda.value(&fast).await.unwrap().metric_value, 1);

    let (_, text) = scaler.admin("/explain/echo").await.unwrap();
    let explained: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of_backlog = explained["decisions"].as_array().unwrap().iter().rev().nth(1).unwrap();
    assert_eq!(of_backlog["object"], "default/echo-workers");
    assert_eq!(of_backlog["seen"]["waiting"]["standard"], 7);
    assert_eq!(of_backlog["decision"]["value"], 7.0);
    assert_eq!(of_backlog["decision"]["target"], 2.5);
    assert_eq!(of_backlog["decision"]["active_because"], "there is work");
    let of_latency = explained["decisions"].as_array().unwrap().last().unwrap();
    assert_eq!(of_latency["rule"]["mode"], "latency");
    assert_eq!(of_latency["rule"]["max_workers"], 3);
    assert_eq!(of_latency["rule"]["seconds"]["standard"], 2.0);
    assert_eq!(of_latency["decision"]["reckoning"]["wanted"], 1.0);

    let arguments = ["explain", "echo", "--admin", scaler.admin_url()];
    let (status, output) = Process::start(system.folder(), &arguments).unwrap().ended().await.unwrap();
    assert!(status.success(), "{output}");
    for part in [
        "default/echo-workers: 2.80 workers, active: there is work",
        "value:     7 jobs = 7 waiting + 0 held by workers + 0 due for retry",
        "no batch measured yet",
    ] {
        assert!(output.contains(part), "{part:?} is not in:\n{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scaler_that_starts_without_workers_uses_the_measurements_of_the_last_ones() {
    let system = System::new(YAML).unwrap();
    let backend = system.backend().await.unwrap();
    // A worker runs half a job per second, so 150 jobs are five cold starts of work. Mode latency requests 5 × √10 workers for
    // them if no more jobs arrive.
    let gone = WorkerRecord {
        batch_base_seconds: 1.0,
        batch_item_seconds: 1.0,
        batch_limit_items: 1,
        cold_start_seconds: 60.0,
        ..worker("echo", WorkerState::Busy)
    };
    backend.roster.heartbeat(&gone, Duration::from_secs(600)).await.unwrap();
    backend.roster.leave(&gone.id).await.unwrap();
    publish(&backend, "echo", 150).await;
    let scaler = system.scaler().await.unwrap();
    let mut keda = Keda::of(&scaler).await;
    let fast = with("echo", &[("mode", "latency"), ("latency", "5s")]);
    assert_eq!(keda.value(&fast).await.unwrap().metric_value, 16);
    let (_, text) = scaler.admin("/explain/echo").await.unwrap();
    let explained: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(explained["decisions"][0]["seen"]["batch_is_recalled"], true, "{text}");
}
