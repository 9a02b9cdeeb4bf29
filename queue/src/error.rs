//! The errors of this crate and of all drivers.

use std::fmt;

/// The result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call: a kind on which the caller decides, a message, and the error of the driver as its source.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The backend did not answer in time. The call may or may not have had its effect. Retry it later.
    Unavailable,
    /// The backend has no room left. Nothing was written; retry when there is room.
    Full,
    /// The id already belongs to another job.
    Conflict,
    /// The backend can never take this value. A retry fails too, for every client.
    Refused,
    /// The backend does not let this client do it: wrong credentials, missing rights, a connection limit, or a wrong
    /// configuration. Nothing was written. The value may be fine, so a retry succeeds once an operator has acted.
    Denied,
    /// The stored data was written by a newer version of this program.
    Incompatible,
    /// The stored data cannot be read.
    Corrupt,
    /// The consumer has ended, by a fault of this program. Each later call fails too. Only a new process helps.
    Ended,
}

impl ErrorKind {
    /// Whether the cause may be one value of a batch. A caller then repeats the call for each value alone, so that one
    /// value does not block the others.
    pub fn is_about_a_value(self) -> bool {
        matches!(self, Self::Conflict | Self::Refused | Self::Corrupt)
    }

    /// Whether the same call may succeed later: when the backend is back, has room, or accepts this client.
    pub fn is_outage(self) -> bool {
        matches!(self, Self::Unavailable | Self::Full | Self::Denied)
    }
}

impl Error {
    /// An error without a source.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), source: None }
    }

    /// An error caused by `source`, whose text is added to `message`.
    pub fn caused(
        kind: ErrorKind,
        message: impl fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        Self { kind, message: format!("{message}: {source}"), source: Some(source) }
    }

    /// The same error for one more caller, without its source.
    pub fn duplicate(&self) -> Self {
        Self { kind: self.kind, message: self.message.clone(), source: None }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
