//! A body in two columns: the bytes, or a reference as JSON.

use bytes::Bytes;
use rusqlite::Row;

use super::error::{corrupt, sqlite};
use crate::{BlobRef, Body, Result};

/// A [`Body`] as its columns `body` and `blob`; exactly one is not null.
pub(crate) struct BodyColumns<'a> {
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) blob: Option<String>,
}

impl<'a> BodyColumns<'a> {
    pub(crate) fn of(body: &'a Body) -> Self {
        match body {
            Body::Inline(bytes) => Self { body: Some(bytes), blob: None },
            Body::Reference(blob) => {
                let blob = serde_json::json!({"key": blob.key, "size_bytes": blob.size_bytes, "sha256": blob.sha256});
                Self { body: None, blob: Some(blob.to_string()) }
            }
        }
    }
}

/// Reads a [`Body`] from its columns, of which `first` is the index of `body` and `blob` follows it.
pub(crate) fn read_body(row: &Row<'_>, first: usize) -> Result<Body> {
    if let Some(blob) = read_blob(row, first + 1)? {
        return Ok(Body::Reference(blob));
    }
    let bytes: Vec<u8> = row.get::<_, Option<Vec<u8>>>(first).map_err(sqlite("read"))?.unwrap_or_default();
    Ok(Body::Inline(Bytes::from(bytes)))
}

/// Reads a column `blob`.
pub(crate) fn read_blob(row: &Row<'_>, column: usize) -> Result<Option<BlobRef>> {
    let text: Option<String> = row.get(column).map_err(sqlite("read"))?;
    text.map(|text| serde_json::from_str(&text).map_err(|_| corrupt("a blob reference", &text))).transpose()
}
