//! The layer around every handler: a span, a count, a duration, and an answer even if the handler panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use service::trace;
use tracing::{Instrument, Span, debug_span, field};

use crate::http::problem::{Problem, ProblemKind};
use crate::http::rest;
use crate::http::trace::{TRACE_PARENT, parent};
use crate::{metrics, paths};

/// The routes of probes and of metrics.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = route(&request);
    let route = route.as_str();
    let span = span(&mut request, route);
    // One layer for both, because every layer copies the request and has a future of its own.
    let answering = AssertUnwindSafe(rest::discard(request, next)).catch_unwind().instrument(span.clone());
    let response = answering.await.unwrap_or_else(|_panic| {
        // The panic hook has logged the place and the message.
        tracing::error!(route, "the handler of a request panicked");
        Problem::internal().into_response()
    });
    let status = response.status().as_u16();
    span.record("http.response.status_code", i64::from(status));
    if response.status().is_server_error() {
        trace::failed(&span, response.status().as_str(), &"the request failed");
    }
    metrics::answered(route, status, started.elapsed());
    response
}

/// The span of a request. A probe has none, because it would fill the collector. Nor has a request that begins a trace
/// which is not recorded; the request has the context of this trace from here on.
fn span(request: &mut Request, route: &str) -> Span {
    if PROBES.contains(&route) {
        return Span::none();
    }
    let parent = parent(request.headers());
    if parent.is_none()
        && let Some(Ok(context)) = trace::unrecorded().map(HeaderValue::try_from)
    {
        request.headers_mut().insert(TRACE_PARENT, context);
        return Span::none();
    }
    let span = debug_span!(
        target: trace::TARGET,
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = field::Empty,
    );
    if let Some(parent) = parent {
        trace::set_parent(&span, &parent);
    }
    span
}

/// The pattern of the path, never the path itself: a client must not be able to create labels of metrics.
fn route(request: &Request) -> MatchedRoute {
    MatchedRoute(request.extensions().get::<MatchedPath>().cloned())
}

struct MatchedRoute(Option<MatchedPath>);

impl MatchedRoute {
    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("none", MatchedPath::as_str)
    }
}

pub(crate) async fn unknown_route(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("path: {path:?} is not a route of this gateway; submit jobs to {}", paths::POOL_JOBS);
    Problem::new(ProblemKind::UnknownRoute, detail).field("path")
}

pub(crate) async fn wrong_method(method: Method) -> Problem {
    let detail = format!("method: {method} is not allowed here; see the Allow header");
    Problem::new(ProblemKind::MethodNotAllowed, detail).field("method")
}
