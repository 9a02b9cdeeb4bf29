//! Rows with named columns, and their faults.

use std::fs::File;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::ReadError;

/// The maximum of times and durations: ten billion seconds, 317 years.
const MAX_SECONDS: f64 = 1e10;

/// The maximum length of a value in an error message, in characters.
const MAX_SHOWN: usize = 40;

/// A file with a header.
pub(super) struct Table {
    file: String,
    reader: csv::Reader<File>,
    header: StringRecord,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column(usize);

/// A row of a table.
pub(super) struct Row<'a> {
    file: &'a str,
    header: &'a StringRecord,
    record: &'a StringRecord,
}

impl Table {
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let file = path.display().to_string();
        let opened = File::open(path).map_err(|source| ReadError::Unreadable { file: file.clone(), source })?;
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(opened);
        let header = reader.headers().cloned().map_err(|error| fault(&file, error))?;
        Ok(Self { file, reader, header })
    }

    /// Whether there is a column of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The column of this name, if there is one.
    pub(super) fn find(&self, name: &str) -> Option<Column> {
        self.header.iter().position(|column| column == name).map(Column)
    }

    /// The column of this name. An error if it is missing.
    pub(super) fn column(&self, name: &str) -> Result<Column, ReadError> {
        self.find(name).ok_or_else(|| {
            let header: String = self.header.iter().collect::<Vec<_>>().join(",").chars().take(2 * MAX_SHOWN).collect();
            let message = format!("has no column {name}; the header begins with {header:?}");
            ReadError::Row { file: self.file.clone(), line: 1, message }
        })
    }

    /// The columns with the names `1`, `2` and so on.
    pub(super) fn numbered(&self) -> Vec<Column> {
        (1..).map_while(|number: u32| self.find(&number.to_string())).collect()
    }

    /// Calls `each` with every row.
    pub(super) fn rows(&mut self, mut each: impl FnMut(&Row<'_>) -> Result<(), ReadError>) -> Result<(), ReadError> {
        let mut record = StringRecord::new();
        while self.reader.read_record(&mut record).map_err(|error| fault(&self.file, error))? {
            each(&Row { file: &self.file, header: &self.header, record: &record })?;
        }
        Ok(())
    }

    /// The error that no row has this pool.
    pub(super) fn no_such_pool(&self, pool: &str) -> ReadError {
        ReadError::NoSuchPool { file: self.file.clone(), pool: pool.to_owned() }
    }

    /// An error of the file as a whole.
    pub(super) fn unfit(&self, message: impl Into<String>) -> ReadError {
        ReadError::File { file: self.file.clone(), message: message.into() }
    }
}

impl Row<'_> {
    /// The text in a column.
    pub(super) fn text(&self, column: Column) -> &str {
        self.record.get(column.0).unwrap_or_default()
    }

    /// A number of at least 0.
    pub(super) fn number(&self, column: Column) -> Result<f64, ReadError> {
        self.parsed(column).ok_or_else(|| self.invalid(column, "is not a number of at least 0"))
    }

    /// A number of seconds of at least 0, in nanoseconds.
    pub(super) fn seconds(&self, column: Column) -> Result<i128, ReadError> {
        let seconds = self.parsed(column).filter(|seconds| *seconds <= MAX_SECONDS);
        let seconds =
            seconds.ok_or_else(|| self.invalid(column, "is not a number of seconds from 0 to 10000000000"))?;
        Ok((seconds * 1e9).round() as i128)
    }

    /// A date and time with or without an offset from UTC, in nanoseconds since 1970.
    pub(super) fn timestamp(&self, column: Column) -> Result<i128, ReadError> {
        let text = self.text(column);
        let with_offset = text.parse::<Timestamp>().ok();
        let timestamp = with_offset.or_else(|| Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok());
        let timestamp =
            timestamp.ok_or_else(|| self.invalid(column, "is not a time such as 2024-05-10T08:00:00.25Z"))?;
        Ok(timestamp.as_nanosecond())
    }

    /// The error that a value is invalid for its column.
    pub(super) fn invalid(&self, column: Column, rule: &str) -> ReadError {
        ReadError::Value {
            file: self.file.to_owned(),
            line: self.line(),
            column: self.header.get(column.0).unwrap_or_default().to_owned(),
            value: self.text(column).chars().take(MAX_SHOWN).collect(),
            rule: rule.to_owned(),
        }
    }

    /// An error of the row as a whole.
    pub(super) fn fault(&self, message: String) -> ReadError {
        ReadError::Row { file: self.file.to_owned(), line: self.line(), message }
    }

    fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    fn parsed(&self, column: Column) -> Option<f64> {
        self.text(column).parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
    }
}

fn fault(file: &str, error: csv::Error) -> ReadError {
    let line = error.position().map_or(1, csv::Position::line);
    let message = match error.into_kind() {
        csv::ErrorKind::Io(source) => return ReadError::Unreadable { file: file.to_owned(), source },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} fields, but the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => "is not a row of comma-separated values".to_owned(),
    };
    ReadError::Row { file: file.to_owned(), line, message }
}
