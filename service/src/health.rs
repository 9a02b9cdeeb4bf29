//! Liveness, readiness and metrics of a process, for an orchestrator.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::{self, HttpLimits};
use crate::{Tls, telemetry};

/// Named conditions. The process is ready if all of them hold. A clone shares the conditions.
///
/// Without conditions the process is ready. A part that needs time to start adds its condition before the router is
/// served.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// By name, the reason why the condition does not hold; `None` if it holds.
    conditions: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

impl Health {
    /// No conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that the condition holds.
    pub fn ready(&self, condition: impl Into<String>) {
        self.conditions.lock().insert(condition.into(), None);
    }

    /// Records that the condition does not hold, with the reason. The reason is served without authentication, so it must
    /// not contain a secret.
    pub fn not_ready(&self, condition: impl Into<String>, reason: impl Into<String>) {
        self.conditions.lock().insert(condition.into(), Some(reason.into()));
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.conditions.lock().values().all(Option::is_none)
    }

    /// The conditions that do not hold, with the reasons.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        self.conditions.lock().iter().filter_map(|(name, reason)| Some((name.clone(), reason.clone()?))).collect()
    }

    /// `/livez`, `/readyz` and `/metrics`.
    ///
    /// `/livez` always answers 200: a restart of the process would not help against an unreachable broker.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }

    /// Serves [`Health::router`] and `more` on `listener` until `stop`. For processes that serve no other HTTP.
    pub async fn serve(
        &self,
        more: Router,
        listener: TcpListener,
        tls: Option<Tls>,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        http::serve(listener, tls, self.router().merge(more), HttpLimits::default(), stop).await;
        Ok(())
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    let reasons = health.reasons();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn metrics() -> Response {
    let text = telemetry::metrics().render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    use super::*;

    async fn get(health: &Health, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health.router().oneshot(request).await.unwrap();
        let status = response.status();
        let media_type = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, media_type, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_process_is_ready_when_every_condition_holds() {
        let health = Health::new();
        assert_eq!(get(&health, "/readyz").await.0, StatusCode::OK);

        health.not_ready("model", "loading weights");
        health.clone().not_ready("store", "opening");
        let (status, media_type, body) = get(&health, "/readyz").await;
        assert_eq!((status, media_type.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/json"));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({ "ready": false, "reasons": { "model": "loading weights", "store": "opening" } })
        );

        health.ready("model");
        assert!(!health.is_ready());
        health.ready("store");
        assert_eq!(get(&health, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_process_that_is_not_ready_is_alive() {
        let health = Health::new();
        health.not_ready("model", "loading weights");
        assert_eq!(get(&health, "/livez").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn more_routes_are_served_on_the_same_socket() {
        let (health, stop) = (Health::new(), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let more = Router::new().route("/more", axum::routing::get(async || "more"));
        let serving = tokio::spawn({
            let (health, stop) = (health.clone(), stop.clone());
            async move { health.serve(more, listener, None, stop).await }
        });
        for path in ["/more", "/livez"] {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        }
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text_with_buckets_of_seconds() {
        let health = Health::new();
        let _ = telemetry::metrics();
        metrics::counter!("health_test_total").increment(3);
        metrics::histogram!("health_test_seconds").record(0.003);
        let (status, media_type, body) = get(&health, "/metrics").await;
        assert_eq!((status, media_type.as_str()), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains("health_test_total 3"), "{body}");
        assert!(body.contains("health_test_seconds_bucket{le=\"0.005\"} 1"), "{body}");
    }
}
