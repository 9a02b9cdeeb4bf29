//! The gateway stops.

use std::time::Duration;

use gateway::GatewaySettings;
use queue::Publication;
use serde_json::Value;
use service::Period;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::doubles::Call;
use crate::harness::{start, start_with};

/// How long a stop may take that must come at all: far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_long_poll_is_answered_at_once_when_the_gateway_stops() {
    let mut gateway = start().await;
    gateway.submit("a", "hello").await;
    let polling = tokio::spawn(gateway.get("/v1/jobs/a?wait=60s").send());
    while gateway.calls.recv().await != Some(Call::Watched) {}
    gateway.stop.cancel();
    let status: Value = polling.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(status["state"], "queued");
    gateway.serving.await.unwrap().unwrap();
    assert!(!gateway.health.is_ready());
    TcpStream::connect(gateway.address).await.unwrap_err();
}

#[tokio::test]
async fn what_the_broker_confirmed_is_told_before_the_gateway_leaves() {
    let mut gateway = start().await;
    gateway.submit("a", "hello").await;
    gateway.stop.cancel();
    gateway.serving.await.unwrap().unwrap();
    let told = gateway.calls.try_recv().unwrap();
    assert_eq!(told, Call::Published(vec![Publication::first("a".parse().unwrap())]));
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let settings = GatewaySettings { drain_timeout: Period::millis(50), ..GatewaySettings::default() };
    let gateway = start_with(settings).await;
    let mut connection = TcpStream::connect(gateway.address).await.unwrap();
    let half = b"POST /v1/pools/text/jobs HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    connection.write_all(half).await.unwrap();
    gateway.submit("a", "hello").await;
    gateway.stop.cancel();
    gateway.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_stop() {
    // Longer than anybody waits: it must not be the limit that ends them.
    let settings = GatewaySettings { drain_timeout: Period::seconds(3600), ..GatewaySettings::default() };
    let gateway = start_with(settings).await;
    let _silent = TcpStream::connect(gateway.address).await.unwrap();
    // Answered, and kept alive by the client.
    assert_eq!(gateway.get("/livez").send().await.unwrap().status(), 200);
    gateway.stop.cancel();
    timeout(PATIENCE, gateway.serving).await.expect("idle connections hold up the stop").unwrap().unwrap();
}
