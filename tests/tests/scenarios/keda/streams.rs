//! Push streams: what they say, when, and what they leave behind.

use futures::{StreamExt, stream};

use super::*;

const STREAMS: &str = "millrace_scaler_streams{call=\"StreamIsActive\"}";

/// So many objects has a cluster that means it.
const MANY: usize = 2_000;

async fn until_open(scaler: &Scaler, streams: usize) {
    until(format_args!("{streams} streams are open"), async || {
        Ok((scaler.metric(STREAMS).await? == streams as f64).then_some(()))
    })
    .await
    .unwrap();
}

/// C12. A repeated `true` blocks the way to zero. The pool without a worker, whose `true` is repeated after 2 s, is the
/// clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_the_state_at_once_and_then_edges_and_repeats_only_until_a_worker_registers() {
    let (system, _scaler, mut keda) = running().await;
    let backend = system.backend().await.unwrap();
    let (staffed, bare) = (object("echo"), object("other"));
    register(&backend, "echo", WorkerState::Idle).await;
    let (mut to_staffed, mut to_bare) = (keda.pushes(&staffed).await.unwrap(), keda.pushes(&bare).await.unwrap());
    assert!(!next(&mut to_staffed).await);
    assert!(!next(&mut to_bare).await);

    publish(&backend, "echo", 1).await;
    publish(&backend, "other", 1).await;
    assert!(next(&mut to_staffed).await);
    assert!(next(&mut to_bare).await);
    assert!(next(&mut to_bare).await, "nothing else can come: the pool stays active");
    assert!(is_silent(&mut to_staffed), "active is repeated, and a worker is there");

    consume(&backend, "echo", 1).await;
    keda.until_value(&staffed, 0.0).await;
    assert!(!next(&mut keda.pushes(&staffed).await.unwrap()).await);
    assert!(is_silent(&mut to_staffed), "an edge to inactive is told");
    publish(&backend, "echo", 1).await;
    assert!(next(&mut to_staffed).await);
}

/// Told by the ledger, whatever the broker: nobody looks for an hour. The first jobs may come before it is listened to.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_accepted_for_an_empty_pool_is_pushed_without_waiting_for_the_next_look() {
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
async fn cancelled_streams_leave_nothing_behind_and_open_ones_end_well_with_the_scaler() {
    let (_system, scaler, keda) = running().await;
    // All of one object: duplicates are borne.
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
    let mut kept = opened.pop().unwrap();
    drop(opened);
    until_open(&scaler, 1).await;
    let mut specs = keda.clone().client.stream_metric_spec(object("echo")).await.unwrap().into_inner();
    assert!(specs.message().await.unwrap().is_some());
    assert_eq!(scaler.metric("millrace_scaler_streams{call=\"StreamMetricSpec\"}").await.unwrap(), 1.0);

    scaler.process.terminate().unwrap();
    // The end of a stream is an error unless its status is OK.
    assert!(kept.message().await.unwrap().is_none());
    assert!(specs.message().await.unwrap().is_none());
    drop(keda);
    let (status, output) = scaler.process.ended().await.unwrap();
    assert!(status.success(), "{status}\n{output}");
    assert!(!output.contains("ERROR") && !output.contains("are cut"), "{output}");
}

/// C14.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_objects_are_served_on_one_connection() {
    let (system, scaler, keda) = running().await;
    let backend = system.backend().await.unwrap();
    publish(&backend, "echo", 3).await;
    // With a worker, nothing is repeated.
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
    // All of them open, everybody is answered all the same.
    assert!(keda.clone().active(&object("echo")).await.unwrap());
    assert!(opened.iter_mut().all(is_silent));
    drop(opened);
    until_open(&scaler, 0).await;
}
