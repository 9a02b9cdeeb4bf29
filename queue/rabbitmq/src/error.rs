//! What the driver's errors mean to a caller.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use queue::{Error, ErrorKind, Result};

/// The longest an answer may take: a quorum queue whose leader just died needs a few seconds to elect another.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for the server's answer, but not for ever.
pub(super) async fn answer<T>(doing: impl Display, asked: impl Future<Output = lapin::Result<T>>) -> Result<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| failed(doing, error)),
        Err(_) => Err(unanswered(doing)),
    }
}

/// The server said nothing in time.
pub(super) fn unanswered(doing: impl Display) -> Error {
    Error::new(ErrorKind::Unavailable, format_args!("cannot {doing}: no answer within {ANSWER_TIMEOUT:?}"))
}

/// What `error` means when it came of `doing`.
pub(super) fn failed(doing: impl Display, error: lapin::Error) -> Error {
    Error::caused(kind_of(&error), format_args!("cannot {doing}"), error)
}

/// The server has closed the channel over what was asked; another question may be answered.
pub(super) fn is_of_one_queue(error: &Error) -> bool {
    let driver = std::error::Error::source(error).and_then(|source| source.downcast_ref::<lapin::Error>());
    let said = driver.and_then(|driver| match driver.kind() {
        lapin::ErrorKind::ProtocolError(said) => Some(said),
        _ => None,
    });
    said.is_some_and(|said| matches!(said.kind(), AMQPErrorKind::Soft(_)))
}

fn kind_of(error: &lapin::Error) -> ErrorKind {
    use lapin::ErrorKind as Driver;
    match error.kind() {
        Driver::ProtocolError(said) => match said.kind() {
            // A queue is gone for as long as it takes to declare it again.
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::RESOURCELOCKED) => ErrorKind::Unavailable,
            AMQPErrorKind::Soft(_) => ErrorKind::Refused,
            AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED | AMQPHardError::INTERNALERROR) => {
                ErrorKind::Unavailable
            }
            AMQPErrorKind::Hard(AMQPHardError::RESOURCEERROR) => ErrorKind::Full,
            AMQPErrorKind::Hard(_) => ErrorKind::Refused,
        },
        // What the TLS library says of a certificate that it does not trust.
        Driver::IOError(error) if error.kind() == std::io::ErrorKind::InvalidData => ErrorKind::Refused,
        Driver::InvalidProtocolVersion(_) | Driver::SerialisationError(_) | Driver::AuthProviderError(_) => {
            ErrorKind::Refused
        }
        Driver::ParsingError(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}
