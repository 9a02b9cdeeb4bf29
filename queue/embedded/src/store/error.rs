//! Errors of SQLite and of the data folder as our kinds.

use std::path::Path;

use rusqlite::ErrorCode;

use queue::{Error, ErrorKind};

/// Converts an error that SQLite returned during `action`.
pub(crate) fn sqlite(action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |error| {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
        let kind = match (error.sqlite_error_code(), &error) {
            (Some(ErrorCode::DiskFull), _) => ErrorKind::Full,
            (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation), _) => {
                ErrorKind::Corrupt
            }
            (Some(ErrorCode::TooBig), _) => ErrorKind::Refused,
            // A value in a row that this program could not have written.
            (_, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..)) => {
                ErrorKind::Corrupt
            }
            _ => ErrorKind::Unavailable,
        };
        Error::caused(kind, format_args!("cannot {action}"), error)
    }
}

/// The error for a value in the file that this program could not have written.
pub(crate) fn corrupt(what: &'static str, value: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format_args!("the data file holds {value:?} as {what}", value = value.to_string()))
}

/// The error for a data folder that cannot be used.
pub(super) fn unusable(folder: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format_args!("data folder {}: {error}", folder.display()))
}
