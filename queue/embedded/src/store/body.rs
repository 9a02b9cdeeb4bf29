//! Reads the parts of a job that have no column type of their own. A body has two columns: its bytes, or a reference as
//! JSON. An origin is JSON.

use bytes::Bytes;
use rusqlite::Row;

use super::error::{corrupt, sqlite};
use queue::{BlobRef, Body, Origin, Result};

/// Reads a [`Body`] from its columns. `first` is the index of `body`, and `blob` follows it.
pub(crate) fn read_body(row: &Row<'_>, first: usize) -> Result<Body> {
    if let Some(blob) = read_blob(row, first + 1)? {
        return Ok(Body::Reference(blob));
    }
    let bytes: Vec<u8> = row.get::<_, Option<Vec<u8>>>(first).map_err(sqlite("read"))?.unwrap_or_default();
    Ok(Body::Inline(Bytes::from(bytes)))
}

/// Reads the column `blob`.
pub(crate) fn read_blob(row: &Row<'_>, column: usize) -> Result<Option<BlobRef>> {
    let text: Option<String> = row.get(column).map_err(sqlite("read"))?;
    text.map(|text| serde_json::from_str(&text).map_err(|_| corrupt("a blob reference", &text))).transpose()
}

/// Reads the column `origin`.
pub(crate) fn read_origin(row: &Row<'_>, column: usize) -> Result<Option<Origin>> {
    let text: Option<String> = row.get(column).map_err(sqlite("read"))?;
    text.map(|text| serde_json::from_str(&text).map_err(|_| corrupt("an origin", &text))).transpose()
}
