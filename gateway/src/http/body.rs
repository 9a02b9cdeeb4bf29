//! Reads a request's body, within a limit of bytes and of time.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::http::problem::{Problem, ProblemKind};

/// A length that a client merely announces reserves no more memory than this.
const RESERVED_BYTES: usize = 1024 * 1024;

/// How much, and for how long, a body that is refused is read on.
const DISCARDED_BYTES: usize = 64 * 1024 * 1024;
const DISCARDING: Duration = Duration::from_secs(2);

/// The whole body, or why not. A body that came in one piece is not copied.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit_bytes: usize,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let announced: Option<usize> = length;
    if announced.is_some_and(|length| length > limit_bytes) {
        // Whoever asks first (`Expect: 100-continue`) has not sent anything yet, and reading would ask for it.
        if !headers.contains_key(EXPECT) {
            discard(stream).await;
        }
        return Err(too_large(limit_bytes));
    }
    let reading = async {
        let mut whole = Whole::default();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| {
                Problem::new(ProblemKind::BodyUnreadable, format!("body: broke off: {error}")).field("body")
            })?;
            if whole.len() + chunk.len() > limit_bytes {
                return Err(too_large(limit_bytes));
            }
            whole.push(chunk, announced.unwrap_or(0).min(RESERVED_BYTES));
        }
        Ok(whole.into_bytes())
    };
    let read = tokio::time::timeout(timeout, reading).await.unwrap_or_else(|_| {
        let detail = format!("body: did not arrive within {timeout:?}");
        Err(Problem::new(ProblemKind::BodyTimeout, detail).field("body"))
    });
    if read.as_ref().is_err_and(|problem| problem.kind() == ProblemKind::BodyTooLarge) {
        discard(stream).await;
    }
    read
}

fn too_large(limit_bytes: usize) -> Problem {
    let detail = format!("body: is larger than {limit_bytes} bytes, the most this gateway takes");
    Problem::new(ProblemKind::BodyTooLarge, detail).field("body")
}

/// Reads on for a while, so that a client that is still sending gets to read the answer instead of a reset connection.
async fn discard(mut stream: BodyDataStream) {
    let discarding = async {
        let mut left = DISCARDED_BYTES;
        while let Some(Ok(chunk)) = stream.next().await {
            let Some(rest) = left.checked_sub(chunk.len()) else { break };
            left = rest;
        }
    };
    // Cut off by time or by size, the connection is closed with the answer on it, which is all that can be done.
    let _ = tokio::time::timeout(DISCARDING, discarding).await;
}

/// Pieces on their way to one.
#[derive(Default)]
enum Whole {
    #[default]
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Whole {
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, chunk: Bytes, reserve: usize) {
        *self = match std::mem::take(self) {
            Self::Nothing => Self::One(chunk),
            Self::One(first) => {
                let mut bytes = BytesMut::with_capacity(reserve.max(first.len() + chunk.len()));
                bytes.extend_from_slice(&first);
                bytes.extend_from_slice(&chunk);
                Self::Many(bytes)
            }
            Self::Many(mut bytes) => {
                bytes.extend_from_slice(&chunk);
                Self::Many(bytes)
            }
        };
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}
