//! Why a call failed.

use std::time::Duration;

use reqwest::StatusCode;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a URL.
    #[error("{text:?} is not a URL: {source}")]
    NotAUrl {
        /// The text.
        text: String,
        /// The reason.
        source: <reqwest::Url as std::str::FromStr>::Err,
    },
    /// The URL is one that this crate cannot use.
    #[error("{text:?} is not a plain http:// URL such as http://127.0.0.1:8080")]
    NotPlainHttp {
        /// The text.
        text: String,
    },
    /// The HTTP client cannot be created.
    #[error("cannot make an HTTP client: {}", innermost(.0))]
    Client(#[source] reqwest::Error),
    /// The request cannot be built, for example because a media type holds a line break. A repetition would fail too.
    #[error("the request cannot be built: {}", innermost(.0))]
    Request(#[source] reqwest::Error),
    /// There was no answer, or the connection broke within it. The server may have acted on the request.
    #[error("the {server} at {url} cannot be reached: {}", innermost(.source))]
    Unreachable {
        /// The name of the server: `gateway` or `scaler`.
        server: &'static str,
        /// Its URL.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The server answered with an error status.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// The answer does not have the expected form.
    #[error("the {server}'s answer cannot be read: {reason}")]
    Unreadable {
        /// The name of the server: `gateway` or `scaler`.
        server: &'static str,
        /// The reason.
        reason: String,
    },
}

/// An answer with an error status, and the parts of its problem document (RFC 9457) that a client decides on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The document's `detail` or `title`; a sentence with the status if there is none.
    pub reason: String,
    /// The state of the job, if the document names one.
    pub state: Option<String>,
    /// The time after which the request may be repeated, if the answer names one.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// The text of the innermost cause: `connection refused` rather than `error sending request`.
    pub fn innermost(&self) -> String {
        match self {
            Self::Client(source) | Self::Request(source) | Self::Unreachable { source, .. } => innermost(source),
            other => other.to_string(),
        }
    }
}

/// The innermost cause names the event ("connection refused"). The causes above it only name the operation.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
