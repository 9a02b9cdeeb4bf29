//! The driver's and the server's errors as our kinds.

use std::fmt;

use ::redis::{ErrorKind as Kind, RedisError};

use queue::{Error, ErrorKind};

/// Our error for one of the driver or the server. `action` names the call that failed.
pub(super) fn driver_error(action: impl fmt::Display, source: RedisError) -> Error {
    Error::caused(kind(&source), format_args!("redis: {action}"), source)
}

/// Whether the connection is useless: it is broken, or its server no longer holds our keys.
pub(super) fn is_fatal(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || matches!(error.kind(), Kind::Io | Kind::Parse)
        || matches!(code(error).as_deref(), Some("READONLY" | "MOVED" | "ASK" | "CLUSTERDOWN" | "MASTERDOWN"))
}

fn kind(error: &RedisError) -> ErrorKind {
    match error.kind() {
        // Another attempt would receive the same certificate.
        Kind::Io if error.to_string().contains("invalid peer certificate") => return ErrorKind::Denied,
        Kind::Io => return ErrorKind::Unavailable,
        Kind::AuthenticationFailed | Kind::InvalidClientConfig => return ErrorKind::Denied,
        Kind::UnexpectedReturnType | Kind::Parse => return ErrorKind::Corrupt,
        _ => {}
    }
    match code(error).as_deref() {
        // MISCONF: the server cannot write to its disk, and rejects writes until it can.
        Some("OOM" | "MISCONF") => ErrorKind::Full,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" | "NOPROTO") => ErrorKind::Denied,
        // A key of another program has the name of one of ours.
        Some("WRONGTYPE") => ErrorKind::Corrupt,
        _ if is_denial(&error.to_string()) => ErrorKind::Denied,
        // A proxy or a hosted server may return any code while it fails over. So an unknown code ends nothing.
        _ => ErrorKind::Unavailable,
    }
}

/// Whether an error of the general code `ERR` means that this client may not make the call.
fn is_denial(text: &str) -> bool {
    ["unknown command", "unknown subcommand", "without any password", "invalid password", "DB index is out of range"]
        .iter()
        .any(|denial| text.contains(denial))
}

/// The server's code of an error. For a pipeline, the code of the first command that failed.
fn code(error: &RedisError) -> Option<String> {
    match error.code() {
        Some(code) => Some(code.to_owned()),
        None => error.clone().into_server_errors()?.first().map(|(_, error)| error.code().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_the_kind_that_a_caller_can_act_on() {
        let of_server = |code: &str| ::redis::make_extension_error(code.to_owned(), Some("why".to_owned()));
        let general = |why: &str| ::redis::make_extension_error("ERR".to_owned(), Some(why.to_owned()));
        let io = || RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        let untrusted = || {
            RedisError::from(std::io::Error::other(rustls::Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer,
            )))
        };
        for (source, kind, fatal) in [
            (of_server("OOM"), ErrorKind::Full, false),
            (of_server("MISCONF"), ErrorKind::Full, false),
            (of_server("LOADING"), ErrorKind::Unavailable, false),
            (of_server("READONLY"), ErrorKind::Unavailable, true),
            (of_server("MOVED"), ErrorKind::Unavailable, true),
            (of_server("NOAUTH"), ErrorKind::Denied, false),
            (of_server("WRONGPASS"), ErrorKind::Denied, false),
            (of_server("NOPERM"), ErrorKind::Denied, false),
            (of_server("DENIED"), ErrorKind::Denied, false),
            (of_server("WRONGTYPE"), ErrorKind::Corrupt, false),
            (of_server("ACODEOFAPROXY"), ErrorKind::Unavailable, false),
            (general("max number of clients reached"), ErrorKind::Unavailable, false),
            (general("unknown command 'CONFIG', with args beginning with: 'GET'"), ErrorKind::Denied, false),
            (general("DB index is out of range"), ErrorKind::Denied, false),
            (io(), ErrorKind::Unavailable, true),
            (untrusted(), ErrorKind::Denied, true),
        ] {
            assert_eq!((self::kind(&source), is_fatal(&source)), (kind, fatal), "{source}");
        }
    }
}
