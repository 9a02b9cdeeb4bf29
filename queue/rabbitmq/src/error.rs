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
        Driver::ProtocolError(reason) => kind_of_reply(reason.kind(), reason.get_message().as_str()),
        // The error of the TLS library for a certificate that it does not trust.
        Driver::IOError(error) if error.kind() == std::io::ErrorKind::InvalidData => ErrorKind::Denied,
        Driver::InvalidProtocolVersion(_) | Driver::AuthProviderError(_) => ErrorKind::Denied,
        Driver::SerialisationError(_) => ErrorKind::Refused,
        Driver::ParsingError(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

/// The kind of an error that the server has sent. A missing queue is declared again, so a later call may succeed.
fn kind_of_reply(code: &AMQPErrorKind, text: &str) -> ErrorKind {
    use AMQPErrorKind::{Hard, Soft};
    match code {
        Soft(AMQPSoftError::CONTENTTOOLARGE) => ErrorKind::Refused,
        // The server uses this code also for a queue that exists with other arguments.
        Soft(AMQPSoftError::PRECONDITIONFAILED) if text.contains("message size") => ErrorKind::Refused,
        Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::ACCESSREFUSED) => ErrorKind::Denied,
        // The server also uses NOTALLOWED when a connection limit is reached.
        Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH) => ErrorKind::Denied,
        Hard(AMQPHardError::RESOURCEERROR) => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_that_the_server_can_never_take_is_refused() {
        use AMQPErrorKind::{Hard, Soft};
        let too_big = "PRECONDITION_FAILED - message size 65537 is larger than configured max size 65536";
        let other_queue = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/'";
        for (code, text, kind) in [
            (Soft(AMQPSoftError::CONTENTTOOLARGE), "", ErrorKind::Refused),
            (Soft(AMQPSoftError::PRECONDITIONFAILED), too_big, ErrorKind::Refused),
            (Soft(AMQPSoftError::PRECONDITIONFAILED), other_queue, ErrorKind::Denied),
            (Soft(AMQPSoftError::ACCESSREFUSED), "ACCESS_REFUSED - write access refused", ErrorKind::Denied),
            (Soft(AMQPSoftError::NOTFOUND), "", ErrorKind::Unavailable),
            (Soft(AMQPSoftError::RESOURCELOCKED), "", ErrorKind::Unavailable),
            (Hard(AMQPHardError::NOTALLOWED), "NOT_ALLOWED - node connection limit (1) is reached", ErrorKind::Denied),
            (Hard(AMQPHardError::INVALIDPATH), "", ErrorKind::Denied),
            (Hard(AMQPHardError::RESOURCEERROR), "", ErrorKind::Full),
            (Hard(AMQPHardError::CONNECTIONFORCED), "", ErrorKind::Unavailable),
            (Hard(AMQPHardError::INTERNALERROR), "", ErrorKind::Unavailable),
            (Hard(AMQPHardError::NOTIMPLEMENTED), "", ErrorKind::Unavailable),
            (Hard(AMQPHardError::UNEXPECTEDFRAME), "", ErrorKind::Unavailable),
        ] {
            assert_eq!(kind_of_reply(&code, text), kind, "{code:?} {text}");
        }
    }
}
