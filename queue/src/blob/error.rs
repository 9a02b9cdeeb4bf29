//! The kinds and texts of errors of a blob store.

use object_store::Error as StoreError;

use crate::{Error, ErrorKind};

/// Texts of servers that have no room: the status of WebDAV and MinIO, and the names of quotas.
const FULL: [&str; 4] = ["507 Insufficient Storage", "XMinioStorageFull", "QuotaExceeded", "InsufficientCapacity"];

pub(super) fn failed(verb: &str, key: &str, error: StoreError) -> Error {
    let kind = match kind_of(&error) {
        // A write never looks for an object, so the folder or the bucket is missing.
        ErrorKind::Corrupt if verb != "read" => ErrorKind::Unavailable,
        kind => kind,
    };
    Error::new(kind, format_args!("blob {key}: cannot {verb}: {}", text_of(&error)))
}

/// What a caller can do about an error. `Corrupt`: there is no such object.
pub(super) fn kind_of(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::NotFound { .. } => ErrorKind::Corrupt,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => ErrorKind::Denied,
        _ if is_full(error) => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    }
}

/// The text of an error, without the queries of URLs: they may hold a signature or a key.
pub(super) fn text_of(error: &StoreError) -> String {
    let text = error.to_string();
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find("://") {
        let end_of_url = |text: &str| text.find([' ', '"', '\'', ')', '>', '<', '\n']).unwrap_or(text.len());
        let end = start + end_of_url(&rest[start..]);
        shown.push_str(rest[..end].split('?').next().unwrap_or_default());
        rest = &rest[end..];
    }
    shown.push_str(rest);
    shown
}

/// Whether a read failed because of the object, if the rest of the store can be read. A server may deny to read an object
/// that is missing.
pub(super) fn is_of_object(error: &StoreError) -> bool {
    matches!(error, StoreError::NotFound { .. } | StoreError::InvalidPath { .. } | StoreError::PermissionDenied { .. })
}

/// Like [`is_of_object`], for files. Outside programs choose keys, so a key may be too long for a file, or name a file that
/// this process may not read.
pub(super) fn is_of_file(error: &StoreError) -> bool {
    use std::io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, PermissionDenied};
    // The files' store has a private error for a name that it reserves, such as `a#1`.
    io_kinds(error).next().is_none()
        || io_kinds(error).any(|kind| matches!(kind, InvalidFilename | IsADirectory | NotADirectory | PermissionDenied))
}

fn io_kinds(error: &(dyn std::error::Error + 'static)) -> impl Iterator<Item = std::io::ErrorKind> {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>().map(std::io::Error::kind))
}

fn is_full(error: &StoreError) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    io_kinds(error).any(|kind| matches!(kind, StorageFull | QuotaExceeded | FileTooLarge))
        || FULL.iter().any(|text| error.to_string().contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn errors_of_servers_have_their_kinds() {
        let source = || "the server said so".to_owned().into();
        let path = || "input/1".to_owned();
        for (error, kind) in [
            (StoreError::NotFound { path: path(), source: source() }, ErrorKind::Corrupt),
            (StoreError::PermissionDenied { path: path(), source: source() }, ErrorKind::Denied),
            (StoreError::Unauthenticated { path: path(), source: source() }, ErrorKind::Denied),
            (generic("status code: 507 Insufficient Storage: "), ErrorKind::Full),
            (generic("status code: 400: <Code>QuotaExceeded</Code>"), ErrorKind::Full),
            (generic("status code: 503 Service Unavailable"), ErrorKind::Unavailable),
            (generic("operation timed out"), ErrorKind::Unavailable),
        ] {
            assert_eq!(kind_of(&error), kind, "{error}");
        }
    }

    #[test]
    fn the_query_of_a_url_is_not_shown() {
        let error = generic("GET https://a.b/c?sig=secret in 1s, https://d/e?sv=1&sig=secret");
        let text = text_of(&error);
        assert!(text.ends_with("GET https://a.b/c in 1s, https://d/e") && !text.contains("secret"), "{text}");
    }
}
