//! The stop of a gateway.

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

/// The limit of a stop that has no limit of its own: far more time than it needs.
const STOP_LIMIT: Duration = Duration::from_secs(60);

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
async fn confirmed_publications_reach_the_ledger_before_the_gateway_stops() {
    let mut gateway = start().await;
    gateway.submit("a", "hello").await;
    gateway.stop.cancel();
    gateway.serving.await.unwrap().unwrap();
    let call = gateway.calls.try_recv().unwrap();
    assert_eq!(call, Call::Published(vec![Publication::first("a".parse().unwrap())]));
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_when_the_drain_times_out() {
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
async fn idle_connections_do_not_delay_the_stop() {
    // This is longer than the test, so that this limit does not end the connections.
    let settings = GatewaySettings { drain_timeout: Period::seconds(3600), ..GatewaySettings::default() };
    let gateway = start_with(settings).await;
    let _silent = TcpStream::connect(gateway.address).await.unwrap();
    // The client keeps this connection open after the answer.
    assert_eq!(gateway.get("/livez").send().await.unwrap().status(), 200);
    gateway.stop.cancel();
    timeout(STOP_LIMIT, gateway.serving).await.expect("idle connections delay the stop").unwrap().unwrap();
}

#[tokio::test]
async fn requests_are_answered_in_the_lame_duck_time_and_the_gateway_is_not_ready() {
    let settings = GatewaySettings { lame_duck: Period::seconds(3600), ..GatewaySettings::default() };
    let gateway = start_with(settings).await;
    assert_eq!(gateway.get("/readyz").send().await.unwrap().status(), 200);
    gateway.stop.cancel();
    while gateway.health.is_ready() {
        tokio::task::yield_now().await;
    }
    assert_eq!(gateway.get("/readyz").send().await.unwrap().status(), 503);
    assert_eq!(gateway.submit("a", "hello").await.status(), 202);
    gateway.serving.abort();
}
