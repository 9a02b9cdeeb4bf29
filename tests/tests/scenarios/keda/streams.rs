//! Push streams: their messages, and the release of their resources.

use futures::{StreamExt, stream};

use super::*;

const STREAMS: &str = "millrace_scaler_streams{call=\"StreamIsActive\"}";

/// The number of ScaledObjects in a large cluster.
const MANY: usize = 2_000;

async fn until_open(scaler: &Scaler, streams: usize) {
    until(format_args!("{streams} streams are open"), async || {
        Ok((scaler.metric(STREAMS).await? == streams as f64).then_some(()))
    })
    .await
    .unwrap();
}

/// C12. A repeated `true` prevents a pool from scaling to zero. The pool without a worker shows this test how much time
/// has passed: its `true` is repeated after 2 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_pushes_the_state_at_once_then_changes_to_active_and_repeats_only_until_a_worker_registers() {
    let (system, _scaler, mut keda) = running().await;
    let backend = system.backend().await.unwrap();
    let (with_worker, without_worker) = (object("echo"), object("other"));
    register(&backend, "echo", WorkerState::Idle).await;
    let (mut pushes_with, mut pushes_without) =
        (keda.pushes(&with_worker).await.unwrap(), keda.pushes(&without_worker).await.unwrap());
    assert!(!next(&mut pushes_with).await);
    assert!(!next(&mut pushes_without).await);

    publish(&backend, "echo", 1).await;
    publish(&backend, "other", 1).await;
    assert!(next(&mut pushes_with).await);
    assert!(next(&mut pushes_without).await);
    assert!(next(&mut pushes_without).await, "the pool stays active, so only `true` can follow");
    assert!(is_silent(&mut pushes_with), "`true` is repeated although there is a worker");

    consume(&backend, "echo", 1).await;
    keda.until_value(&with_worker, 0.0).await;
    assert!(!next(&mut keda.pushes(&with_worker).await.unwrap()).await);
    assert!(is_silent(&mut pushes_with), "a change to inactive is pushed");
    publish(&backend, "echo", 1).await;
    assert!(next(&mut pushes_with).await);
}

/// The ledger notifies the scaler, on every broker: here a reading takes place once an hour. The first jobs may arrive
/// before the scaler listens to the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_accepted_for_an_empty_pool_is_pushed_before_the_next_reading() {
    for kind in BrokerKind::ALL {
        let yaml = YAML.replace("sample_interval: 20ms", "sample_interval: 1h, max_reading_age: 2h");
        let system = System::on(kind, &yaml).unwrap();
        let scaler = system.scaler().await.unwrap();
        let mut keda = Keda::of(&scaler).await;
        let mut pushes = keda.pushes(&object("echo")).await.unwrap();
        assert!(!next(&mut pushes).await);

        let backend = system.backend().await.unwrap();
        let pushed = tokio::spawn(async move { next(&mut pushes).await });
        until(format_args!("{kind}: a job is pushed"), async || {
            let job = job("echo");
            backend.ledger.submit(std::slice::from_ref(&job)).await?;
            backend.broker.producer().await?.publish(&[job]).await?;
            Ok(pushed.is_finished().then_some(()))
        })
        .await
        .unwrap();
        assert!(pushed.await.unwrap());
    }
}

/// C13.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_streams_free_their_resources_and_open_ones_end_without_an_error() {
    let (_system, scaler, keda) = running().await;
    // All streams are for one object, because duplicates are allowed.
    let opened = stream::iter(0..MANY).map(|_| {
        let mut keda = keda.clone();
        async move {
            let mut pushes = keda.pushes(&object("echo")).await.unwrap();
            assert!(!next(&mut pushes).await);
            pushes
        }
    });
    let mut opened: Vec<_> = opened.buffer_unordered(100).collect().await;
    until_open(&scaler, MANY).await;
    let mut open = opened.pop().unwrap();
    drop(opened);
    until_open(&scaler, 1).await;
    let mut specs = keda.clone().client.stream_metric_spec(object("echo")).await.unwrap().into_inner();
    assert!(specs.message().await.unwrap().is_some());
    assert_eq!(scaler.metric("millrace_scaler_streams{call=\"StreamMetricSpec\"}").await.unwrap(), 1.0);

    scaler.process.terminate().unwrap();
    // A stream that ends with a status other than OK returns an error here.
    assert!(open.message().await.unwrap().is_none());
    assert!(specs.message().await.unwrap().is_none());
    drop(keda);
    let (status, output) = scaler.process.ended().await.unwrap();
    assert!(status.success(), "{status}\n{output}");
    assert!(!output.contains("ERROR") && !output.contains("are closed"), "{output}");
}

/// C14.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_objects_are_served_on_one_connection() {
    let (system, scaler, keda) = running().await;
    let backend = system.backend().await.unwrap();
    publish(&backend, "echo", 3).await;
    // With a worker, the state is not repeated.
    register(&backend, "echo", WorkerState::Busy).await;
    let name = keda.until_value(&object("echo"), 3.0).await.metric_name;
    let objects = stream::iter(0..MANY).map(|number| {
        let (mut keda, name) = (keda.clone(), name.clone());
        let object = ScaledObjectRef { name: format!("object-{number}"), ..object("echo") };
        async move {
            let mut pushes = keda.pushes(&object).await.unwrap();
            assert!(next(&mut pushes).await);
            assert_eq!(keda.named(&object, &name).await.unwrap().metric_value, 3);
            pushes
        }
    });
    let mut opened: Vec<_> = objects.buffer_unordered(100).collect().await;
    until_open(&scaler, MANY).await;
    // Calls are answered while all streams are open.
    assert!(keda.clone().active(&object("echo")).await.unwrap());
    assert!(opened.iter_mut().all(is_silent));
    drop(opened);
    until_open(&scaler, 0).await;
}
