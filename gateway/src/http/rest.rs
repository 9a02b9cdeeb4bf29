//! Reads the rest of a request that was answered early, so that a client that still sends can read the answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Version;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use futures::future;
use futures::stream;

/// At most this number of bytes is read after an early answer, for at most this time.
const DISCARDED_BYTES: usize = 64 * 1024 * 1024;
const DISCARDING: Duration = Duration::from_secs(2);

/// A body that the handler and this layer share. The handler has ended when this layer reads.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<State>>);

struct State {
    stream: BodyDataStream,
    /// Whether the client has been asked for the body, or may send it unasked.
    asked: bool,
    ended: bool,
}

impl SharedBody {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
        let mut state = self.lock();
        state.asked = true;
        let next = state.stream.poll_next_unpin(context);
        state.ended |= matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }

    /// Reads and discards the rest. Beyond the limit of time or size the connection is closed, and a client that still
    /// sends may lose the answer.
    async fn discard(&self) {
        let discarding = async {
            let mut left = DISCARDED_BYTES;
            while let Some(Ok(chunk)) = future::poll_fn(|context| self.poll_next(context)).await {
                let Some(rest) = left.checked_sub(chunk.len()) else { break };
                left = rest;
            }
        };
        let _ = tokio::time::timeout(DISCARDING, discarding).await;
    }
}

/// Answers a request, and reads its rest if the answer is an error. Without it, the kernel would reset the
/// connection of a client that still sends.
pub(crate) async fn discard(request: Request, next: Next) -> Response {
    // HTTP/2 ends one request without its connection.
    if request.body().is_end_stream() || request.version() == Version::HTTP_2 {
        return next.run(request).await;
    }
    // A client with `Expect: 100-continue` has not sent the body yet, and reading would make it send the body.
    let asked = !request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let body = SharedBody(Arc::new(Mutex::new(State { stream: body.into_data_stream(), asked, ended: false })));
    let of_handler = body.clone();
    let stream = stream::poll_fn(move |context| of_handler.poll_next(context));
    let response = next.run(Request::from_parts(parts, Body::from_stream(stream))).await;
    let unread = {
        let state = body.lock();
        state.asked && !state.ended
    };
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    if unread && is_error {
        body.discard().await;
    }
    response
}
