//! The room that records take in the data file.

use std::path::Path;

use rusqlite::Connection;

use super::error::sqlite;
use super::risk::free_bytes;
use queue::{Result, Usage};

/// About the bytes of a record, or of a message, besides its body.
const ROW_BYTES: u64 = 512;

/// The mean size of the records in the file, and the size that the file may have. `None`: no job has ended.
pub(super) fn usage(connection: &Connection, file: &Path, max_size_bytes: Option<u64>) -> Result<Option<Usage>> {
    let measuring = sqlite("measure the records");
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0)).map_err(&measuring);
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0)).map_err(&measuring);
    if count("SELECT EXISTS (SELECT 1 FROM jobs WHERE purge_at IS NOT NULL)")? == 0 {
        return Ok(None);
    }
    let (pages, page_bytes) = (pragma("page_count")?, pragma("page_size")?);
    let used_pages = pages.saturating_sub(pragma("freelist_count")?);
    // Every table and index has a page, even if it is empty.
    let empty_pages = count("SELECT count(*) FROM sqlite_schema WHERE rootpage > 0")?;
    // The messages of the broker and the records of open jobs are subtracted.
    let open_bodies = count(
        "SELECT coalesce((SELECT sum(length(body)) FROM payloads), 0) + coalesce((SELECT sum(length(body)) FROM jobs \
         JOIN inputs USING (job) WHERE due_at IS NOT NULL), 0)",
    )?;
    let open_rows =
        count("SELECT (SELECT count(*) FROM payloads) + (SELECT count(*) FROM jobs WHERE purge_at IS NULL)")?;
    let open_bytes = open_bodies + open_rows * ROW_BYTES;
    let record_bytes = (used_pages.saturating_sub(empty_pages) * page_bytes).saturating_sub(open_bytes)
        / count("SELECT count(*) FROM jobs WHERE purge_at IS NOT NULL")?.max(1);
    let folder = file.parent().unwrap_or(file);
    let on_disk_bytes = (pages * page_bytes).saturating_add(free_bytes(folder)?);
    let (capacity_bytes, setting, limit) = match max_size_bytes {
        Some(max_size_bytes) if max_size_bytes < on_disk_bytes => (max_size_bytes, "max_size", "max_size"),
        _ => (on_disk_bytes, "disk space", "the file and the free space of its disk"),
    };
    Ok(Some(Usage {
        subject: format!("file {}", file.display()),
        setting: setting.to_owned(),
        limit: limit.to_owned(),
        capacity_bytes,
        record_bytes,
    }))
}
