//! Why a call failed.

use std::time::Duration;

use reqwest::StatusCode;

use crate::fault::TlsFault;

/// Why a call failed. The text contains the innermost cause, so no error has a source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a URL.
    #[error("{text:?} is not a URL: {cause}")]
    NotAUrl {
        /// The text.
        text: String,
        /// The reason.
        cause: <reqwest::Url as std::str::FromStr>::Err,
    },
    /// The URL is one that this crate cannot use.
    #[error("{text:?} is not a URL with http:// or https://, such as http://127.0.0.1:8080")]
    NotHttp {
        /// The text.
        text: String,
    },
    /// TLS cannot be configured.
    #[error("cannot configure TLS: {0}")]
    NoTls(rustls::Error),
    /// The HTTP client cannot be created.
    #[error("cannot make an HTTP client: {}", innermost(.0))]
    Client(reqwest::Error),
    /// The request cannot be built, for example because a media type holds a line break. A repetition would fail too.
    #[error("the request cannot be built: {}", innermost(.0))]
    Request(reqwest::Error),
    /// There was no answer, or the connection broke within it. The server may have acted on the request.
    #[error("the {server} at {url} cannot be reached: {}", innermost(.cause))]
    Unreachable {
        /// The name of the server: `gateway` or `scaler`.
        server: &'static str,
        /// Its URL.
        url: String,
        /// The cause.
        cause: reqwest::Error,
    },
    /// The connection cannot be used, because of TLS or of the scheme of the URL. A repetition would fail too.
    #[error("cannot connect to the {server} at {url}: {fault}")]
    Tls {
        /// The name of the server: `gateway` or `scaler`.
        server: &'static str,
        /// Its URL.
        url: String,
        /// The reason.
        fault: TlsFault,
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
    /// Whether a repetition of the call would fail in the same way, without an answer of the server.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(self, Self::Request(_) | Self::Tls { .. })
    }

    /// The text of the innermost cause: `connection refused` rather than `error sending request`.
    pub fn innermost(&self) -> String {
        match self {
            Self::Client(cause) | Self::Request(cause) | Self::Unreachable { cause, .. } => innermost(cause),
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
