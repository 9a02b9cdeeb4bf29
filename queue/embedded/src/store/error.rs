//! SQLite's errors in our kinds.

use rusqlite::ErrorCode;

use queue::{Error, ErrorKind};

/// Turns an error of SQLite, met while doing `action`, into ours.
pub(crate) fn sqlite(action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |error| {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => ErrorKind::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
            _ => ErrorKind::Unavailable,
        };
        Error::caused(kind, format_args!("cannot {action}"), error)
    }
}

/// A value in the file that this program could not have written.
pub(crate) fn corrupt(what: &'static str, value: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format_args!("the data file holds {value:?} as {what}", value = value.to_string()))
}
