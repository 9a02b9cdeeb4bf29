//! Decodes the body of a request with a `Content-Encoding`.

mod decode;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::Bytes;

use crate::aside;
use crate::http::budget::Reserved;
use crate::http::problem::{ACCEPTED_ENCODINGS, Problem, ProblemKind};

/// The longest value that an error repeats.
const SHOWN_CHARACTERS: usize = 80;

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Zstd,
}

impl Encoding {
    /// The encoding that a request names. `None`: the body is not encoded.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut found = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            let value = String::from_utf8_lossy(value.as_bytes());
            // A list may have empty elements (RFC 9110, section 5.6.1).
            for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let encoding = match name.to_ascii_lowercase().as_str() {
                    "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "zstd" => Self::Zstd,
                    _ => return Err(unsupported(name, format_args!("is not one of {ACCEPTED_ENCODINGS}"))),
                };
                if found.replace(encoding).is_some() {
                    return Err(unsupported(&value, format_args!("is a second encoding; encode the body once")));
                }
            }
        }
        Ok(found)
    }

    /// Decodes a body. The result has at most `limit_bytes`, and `reserved` is the room for it alone.
    pub(crate) async fn decode(
        self,
        body: Bytes,
        mut reserved: Reserved,
        limit_bytes: usize,
    ) -> Result<(Bytes, Reserved), Problem> {
        // The decoded size is not known before, so there must be room for the largest one.
        reserved.grow_to(body.len().saturating_add(limit_bytes)).await?;
        // The room moves with the work, which goes on if the client disconnects.
        let (decoded, mut reserved) = aside::run(move || {
            let decoded = match self {
                Self::Gzip => decode::gzip(&body, limit_bytes),
                Self::Zstd => decode::zstd(&body, limit_bytes),
            };
            (decoded, reserved)
        })
        .await;
        let decoded = decoded.map_err(|error| {
            let detail = format!("body: is not {}, as its content-encoding says: {error}", self.rule());
            Problem::new(ProblemKind::BodyUnreadable, detail).field("body")
        })?;
        if decoded.len() > limit_bytes {
            let detail = format!("body: decodes to more than {limit_bytes} bytes, the limit of this gateway");
            return Err(Problem::new(ProblemKind::BodyTooLarge, detail).field("body"));
        }
        reserved.shrink_to(decoded.len());
        Ok((decoded.into(), reserved))
    }

    fn rule(self) -> &'static str {
        match self {
            Self::Gzip => "whole members of gzip",
            Self::Zstd => "whole frames of zstd with windows of at most 8 MiB",
        }
    }
}

fn unsupported(value: &str, rule: std::fmt::Arguments<'_>) -> Problem {
    let value: String = value.chars().take(SHOWN_CHARACTERS).collect();
    let detail = format!("content-encoding: {value:?} {rule}");
    Problem::new(ProblemKind::UnsupportedEncoding, detail).field("content-encoding")
}

#[cfg(test)]
mod tests;
