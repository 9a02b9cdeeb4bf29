//! The answers of a scaler while its broker is unreachable or hangs.

use std::time::Instant;

use futures::future::join_all;
use millrace_tests::{BrokerKind, BrokerUrls, PrivateServer};
use reqwest::StatusCode;
use tokio::net::TcpListener;

use super::*;

/// A call has a time limit of 2 s in the scaler. This limit only separates it from a call that hangs.
const IN_TIME: Duration = Duration::from_secs(10);

const PASSWORD: &str = "hunter2";

/// A scaler whose broker is at `address`. The URL of the broker contains [`PASSWORD`].
async fn scaler_of(address: std::net::SocketAddr, yaml: &str) -> (System, Scaler, Keda) {
    let urls = BrokerUrls { broker: format!("redis://millrace:{PASSWORD}@{address}"), ledger: None };
    let system = System::at(urls, yaml).unwrap();
    let scaler = system.scaler().await.unwrap();
    let keda = Keda::of(&scaler).await;
    (system, scaler, keda)
}

/// An address on which no server listens.
async fn unused_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Checks a scaler that can read nothing: it returns errors in time, without a secret and never 0, and still a spec.
async fn returns_errors_and_a_spec(scaler: &Scaler, mut keda: Keda) {
    let requested = object("echo");
    let began = Instant::now();
    let mut pushes = keda.pushes(&requested).await.unwrap();
    let name = keda.spec(&requested).await.unwrap().metric_name;
    for _ in 0..2 {
        let began = Instant::now();
        let refused = [
            keda.named(&requested, &name).await.map(|value| value.metric_value_float).unwrap_err(),
            keda.active(&requested).await.unwrap_err(),
        ];
        assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
        for status in refused {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(status.message().starts_with("pool echo: "), "{status}");
            assert!(!format!("{status:?}").contains(PASSWORD), "{status:?}");
        }
    }
    assert!(is_silent(&mut pushes), "the stream has ended, or has pushed an unknown state");
    let (status, text) = scaler.admin("/readyz").await.unwrap();
    assert_eq!(status, StatusCode::OK, "{text}");
    let output = scaler.process.output().join("\n");
    assert!(!output.contains(PASSWORD), "{output}");
    assert!(began.elapsed() < IN_TIME * 3, "{:?}", began.elapsed());
}

/// C6, C8, C17.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_is_an_error_and_never_zero() {
    let (_system, scaler, keda) = scaler_of(unused_address().await, YAML).await;
    returns_errors_and_a_spec(&scaler, keda).await;
}

/// C6, C8, C17.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_is_an_error_in_time_and_never_zero() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hanging = tokio::spawn(async move {
        let mut accepted = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            accepted.push(socket);
        }
    });
    let (_system, scaler, keda) = scaler_of(address, YAML).await;
    returns_errors_and_a_spec(&scaler, keda).await;
    hanging.abort();
}

/// C6, C10. After the server is killed, the last reading is valid for a short time only.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_value_is_returned_while_it_is_fresh_and_then_an_error() {
    let mut server = PrivateServer::start(BrokerKind::Redis).await.unwrap();
    let yaml = YAML.replace("20ms", "20ms, read_timeout: 500ms, max_reading_age: 5s");
    let system = System::at(BrokerKind::Redis.urls_at(server.url()).unwrap(), &yaml).unwrap();
    let scaler = system.scaler().await.unwrap();
    let mut keda = Keda::of(&scaler).await;
    let backend = system.backend().await.unwrap();
    publish(&backend, "echo", 5).await;
    keda.until_value(&object("echo"), 5.0).await;
    let mut pushes = keda.pushes(&object("echo")).await.unwrap();
    assert!(next(&mut pushes).await);

    server.kill().await.unwrap();
    assert_eq!(keda.value(&object("echo")).await.unwrap().metric_value, 5);
    assert!(keda.active(&object("echo")).await.unwrap(), "the other half of the same reading");
    let refused = until("the reading is too old", async || match keda.clone().value(&object("echo")).await {
        Ok(value) => {
            assert_eq!(value.metric_value, 5);
            Ok(None)
        }
        Err(status) => Ok(Some(status)),
    })
    .await
    .unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(keda.active(&object("echo")).await.unwrap_err().code(), Code::Unavailable);

    server.start_again().await.unwrap();
    let again = until("the value is back", async || Ok(keda.clone().value(&object("echo")).await.ok())).await.unwrap();
    assert_eq!(again.metric_value, 5);
}

/// C6.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_pool_is_an_error() {
    let (_system, _scaler, mut keda) = running().await;
    for (call, status) in keda.all_five(&object("nosuch"), "millrace-nosuch").await {
        let status = status.expect(call);
        assert_eq!(status.code(), UNKNOWN_POOL, "{call}: {status}");
        assert!(status.message().contains("\"nosuch\""), "{call}: {status}");
    }
}

/// C7. In this test a call waits up to 60 s for a reading.
#[tokio::test(flavor = "multi_thread")]
async fn the_spec_is_answered_at_once_to_many_callers_while_the_broker_is_down() {
    let yaml = YAML.replace("20ms", "20ms, answer_timeout: 60s, read_timeout: 60s, max_reading_age: 5m");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_system, _scaler, keda) = scaler_of(listener.local_addr().unwrap(), &yaml).await;
    let waiting = tokio::spawn({
        let mut keda = keda.clone();
        async move { keda.value(&object("echo")).await }
    });
    let began = Instant::now();
    let callers = join_all((0..200).map(|_| {
        let mut keda = keda.clone();
        async move { keda.spec(&object("echo")).await.unwrap() }
    }));
    for spec in callers.await {
        assert_eq!((spec.target_size_float, spec.target_size), (2.5, 3));
    }
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    assert!(!waiting.is_finished(), "the broker was not called");
    waiting.abort();
}

/// C20.
#[tokio::test(flavor = "multi_thread")]
async fn the_scaler_is_ready_while_its_broker_is_unreachable() {
    let (_system, scaler, mut keda) = scaler_of(unused_address().await, YAML).await;
    scaler.process.prints("the scaler is ready").await.unwrap();
    assert_eq!(scaler.admin("/livez").await.unwrap().0, StatusCode::OK);
    let (status, text) = scaler.admin("/readyz").await.unwrap();
    assert_eq!((status, text.as_str()), (StatusCode::OK, "{\"ready\":true,\"reasons\":{}}"));
    keda.active(&object("echo")).await.unwrap_err();
    assert!(scaler.metric("millrace_scaler_calls_total{call=\"IsActive\",code=\"Unavailable\"}").await.unwrap() >= 1.0);
    let failures = scaler.metrics().await.unwrap();
    assert!(failures.iter().any(|line| line.starts_with("millrace_scaler_sample_failures_total")), "{failures:?}");
}
