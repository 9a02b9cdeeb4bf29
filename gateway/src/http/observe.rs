//! What surrounds every request: a span, a count, a time, and an answer even if a handler panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::{Instrument, debug_span, field};

use crate::http::problem::{Problem, ProblemKind};
use crate::metrics;
use crate::server::ROUTES;

pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = route(&request);
    let span = debug_span!("request", method = %request.method(), route, status = field::Empty);
    let answering = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    let response = answering.await.unwrap_or_else(|_panic| {
        // The panic hook has told where and why.
        tracing::error!(route, "a request's handler panicked");
        Problem::new(ProblemKind::Internal, "the gateway failed; its log tells more").into_response()
    });
    span.record("status", response.status().as_u16());
    metrics::answered(route, response.status(), started.elapsed());
    response
}

/// The pattern of the path, never the path itself: what a client makes up must not become a metric's label.
fn route(request: &Request) -> &'static str {
    let matched = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    ROUTES.into_iter().find(|route| *route == matched).unwrap_or("none")
}

pub(crate) async fn unknown_route(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("path: {path:?} is not a route of this gateway; jobs go to {}", crate::server::JOBS);
    Problem::new(ProblemKind::UnknownRoute, detail).field("path")
}

pub(crate) async fn wrong_method(method: Method) -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, format!("method: {method} is not taken here; see the Allow header"))
        .field("method")
}
