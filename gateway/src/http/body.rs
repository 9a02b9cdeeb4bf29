//! Reads the body of a request, within a limit of bytes and of time.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::http::problem::{Problem, ProblemKind};
use crate::settings::GatewaySettings;

/// The most memory that is reserved before the body arrives, from the length that the client has announced.
const RESERVED_BYTES: usize = 1024 * 1024;

/// After a body is refused, the gateway still reads at most this number of bytes, for at most this time.
const DISCARDED_BYTES: usize = 64 * 1024 * 1024;
const DISCARDING: Duration = Duration::from_secs(2);

/// Reads the whole body. A body that arrives in one piece is not copied.
pub(crate) async fn read(headers: &HeaderMap, body: Body, settings: &GatewaySettings) -> Result<Bytes, Problem> {
    let (limit_bytes, timeout) = (settings.max_body.as_usize(), settings.body_timeout.get());
    let mut stream = body.into_data_stream();
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let announced: Option<usize> = length;
    if announced.is_some_and(|length| length > limit_bytes) {
        // A client with `Expect: 100-continue` has not sent the body yet, and reading would make it send the body.
        if !headers.contains_key(EXPECT) {
            discard(stream).await;
        }
        return Err(too_large(limit_bytes));
    }
    let reading = async {
        let mut buffer = Buffer::default();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| {
                Problem::new(ProblemKind::BodyUnreadable, format!("body: broke off: {error}")).field("body")
            })?;
            if buffer.len() + chunk.len() > limit_bytes {
                return Err(too_large(limit_bytes));
            }
            buffer.push(chunk, announced.unwrap_or(0).min(RESERVED_BYTES));
        }
        Ok(buffer.into_bytes())
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
    let detail = format!("body: is larger than {limit_bytes} bytes, the limit of this gateway");
    Problem::new(ProblemKind::BodyTooLarge, detail).field("body")
}

/// Continues to read for a short time, so that a client that still sends can read the answer. Otherwise its connection
/// would be reset.
async fn discard(mut stream: BodyDataStream) {
    let discarding = async {
        let mut left = DISCARDED_BYTES;
        while let Some(Ok(chunk)) = stream.next().await {
            let Some(rest) = left.checked_sub(chunk.len()) else { break };
            left = rest;
        }
    };
    // Beyond the limit of time or size, the gateway answers and closes the connection. A client that still sends may
    // then lose the answer.
    let _ = tokio::time::timeout(DISCARDING, discarding).await;
}

/// The chunks of a body, joined as they arrive. So a client cannot make the gateway store many small chunks separately.
#[derive(Default)]
enum Buffer {
    #[default]
    Empty,
    One(Bytes),
    Joined(BytesMut),
}

impl Buffer {
    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(bytes) => bytes.len(),
            Self::Joined(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, chunk: Bytes, reserve: usize) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(chunk),
            Self::One(first) => {
                let mut bytes = BytesMut::with_capacity(reserve.max(first.len() + chunk.len()));
                bytes.extend_from_slice(&first);
                bytes.extend_from_slice(&chunk);
                Self::Joined(bytes)
            }
            Self::Joined(mut bytes) => {
                bytes.extend_from_slice(&chunk);
                Self::Joined(bytes)
            }
        };
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Empty => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Joined(bytes) => bytes.freeze(),
        }
    }
}
