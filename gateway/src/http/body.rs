//! Reads the body of a request, within a limit of bytes and of time.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::http::budget::{BodyBudget, Reserved};
use crate::http::encoding::Encoding;
use crate::http::problem::{Problem, ProblemKind};
use crate::settings::GatewaySettings;

/// The most memory that is reserved before the body arrives, from the length that the client has announced.
const RESERVED_BYTES: usize = 1024 * 1024;

/// Reads the whole body, and decodes it. Its size is limited before and after. Room for it is reserved until the second
/// part of the result is dropped. An empty body has no encoding.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    settings: &GatewaySettings,
    budget: &BodyBudget,
) -> Result<(Bytes, Reserved), Problem> {
    let encoding = Encoding::of(headers)?;
    let (bytes, reserved) = read_encoded(headers, body, settings, budget).await?;
    match encoding {
        Some(encoding) if !bytes.is_empty() => encoding.decode(bytes, reserved, settings.max_body.as_usize()).await,
        _ => Ok((bytes, reserved)),
    }
}

/// Reads the body as it was sent. A body that arrives in one piece is not copied.
async fn read_encoded(
    headers: &HeaderMap,
    body: Body,
    settings: &GatewaySettings,
    budget: &BodyBudget,
) -> Result<(Bytes, Reserved), Problem> {
    let (limit_bytes, timeout) = (settings.max_body.as_usize(), settings.body_timeout.get());
    let mut stream = body.into_data_stream();
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let announced: Option<usize> = length;
    if announced.is_some_and(|length| length > limit_bytes) {
        return Err(too_large(limit_bytes));
    }
    let reading = async {
        let (mut buffer, mut reserved) = (Buffer::default(), budget.start());
        reserved.grow_to(announced.unwrap_or(0)).await?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| {
                Problem::new(ProblemKind::BodyUnreadable, format!("body: broke off: {error}")).field("body")
            })?;
            let length = buffer.len() + chunk.len();
            if length > limit_bytes {
                return Err(too_large(limit_bytes));
            }
            reserved.grow_to(length).await?;
            buffer.push(chunk, announced.unwrap_or(0).min(RESERVED_BYTES));
        }
        Ok((buffer.into_bytes(), reserved))
    };
    tokio::time::timeout(timeout, reading).await.unwrap_or_else(|_| {
        let detail = format!("body: did not arrive within {timeout:?}");
        Err(Problem::new(ProblemKind::BodyTimeout, detail).field("body"))
    })
}

fn too_large(limit_bytes: usize) -> Problem {
    let detail = format!("body: is larger than {limit_bytes} bytes, the limit of this gateway");
    Problem::new(ProblemKind::BodyTooLarge, detail).field("body")
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
