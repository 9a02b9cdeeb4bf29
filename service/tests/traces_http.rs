//! Traces over HTTP, as a collector receives them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use millrace_service::telemetry::{TelemetrySettings, TracingProtocol, TracingSettings};
use millrace_service::{Telemetry, trace};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_span_reaches_a_collector_that_speaks_http() {
    let (received, mut requests) = mpsc::unbounded_channel();
    let collect = async move |headers: HeaderMap, body: Bytes| received.send((headers, body)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let router = Router::new().route("/v1/traces", post(collect));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let tracing = TracingSettings { endpoint, protocol: TracingProtocol::Http, ..TracingSettings::default() };
    Telemetry::start(&TelemetrySettings { tracing, ..TelemetrySettings::default() }, "tested").unwrap();
    drop(tracing::trace_span!(target: trace::TARGET, "the only span").entered());
    std::thread::spawn(Telemetry::shutdown).join().unwrap();

    let (headers, body) = timeout(Duration::from_secs(60), requests.recv()).await.unwrap().unwrap();
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert!(body.windows(13).any(|part| part == b"the only span"), "{body:?}");
}
