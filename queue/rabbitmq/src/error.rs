//! The driver's errors, in the terms of a caller.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use queue::{Error, ErrorKind, Result};

/// The longest time for a reply. A quorum queue whose leader has failed needs a few seconds to elect another.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for the server's reply, for a limited time.
pub(super) async fn await_reply<T>(doing: impl Display, request: impl Future<Output = lapin::Result<T>>) -> Result<T> {
    match tokio::time::timeout(REPLY_TIMEOUT, request).await {
        Ok(reply) => reply.map_err(|error| failed(doing, error)),
        Err(_) => Err(timed_out(doing)),
    }
}

/// The error of a request without a reply in time.
pub(super) fn timed_out(doing: impl Display) -> Error {
    Error::new(ErrorKind::Unavailable, format_args!("cannot {doing}: no answer within {REPLY_TIMEOUT:?}"))
}

/// The error of a request that failed.
pub(super) fn failed(doing: impl Display, error: lapin::Error) -> Error {
    Error::caused(kind_of(&error), format_args!("cannot {doing}"), error)
}

/// Whether the server has closed only the channel, because of this request. Other requests may still succeed.
pub(super) fn is_channel_error(error: &Error) -> bool {
    let driver = std::error::Error::source(error).and_then(|source| source.downcast_ref::<lapin::Error>());
    let reason = driver.and_then(|driver| match driver.kind() {
        lapin::ErrorKind::ProtocolError(reason) => Some(reason),
        _ => None,
    });
    reason.is_some_and(|reason| matches!(reason.kind(), AMQPErrorKind::Soft(_)))
}

fn kind_of(error: &lapin::Error) -> ErrorKind {
    use lapin::ErrorKind as Driver;
    match error.kind() {
        Driver::ProtocolError(reason) => match reason.kind() {
            // A missing queue is declared again, so a later call may succeed.
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::RESOURCELOCKED) => ErrorKind::Unavailable,
            AMQPErrorKind::Soft(_) => ErrorKind::Refused,
            AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED | AMQPHardError::INTERNALERROR) => {
                ErrorKind::Unavailable
            }
            AMQPErrorKind::Hard(AMQPHardError::RESOURCEERROR) => ErrorKind::Full,
            AMQPErrorKind::Hard(_) => ErrorKind::Refused,
        },
        // The error of the TLS library for a certificate that it does not trust.
        Driver::IOError(error) if error.kind() == std::io::ErrorKind::InvalidData => ErrorKind::Refused,
        Driver::InvalidProtocolVersion(_) | Driver::SerialisationError(_) | Driver::AuthProviderError(_) => {
            ErrorKind::Refused
        }
        Driver::ParsingError(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}
