//! Arrivals from files of comma-separated values: our own, and public traces.
//!
//! | format | columns |
//! |---|---|
//! | own | `time`; optional: `pool` and `work` |
//! | Azure Functions 2019 | `HashOwner`, `HashApp`, `HashFunction`, `Trigger`, `1` to `1440` |
//! | Azure Functions 2021 | `app`, `func`, `end_timestamp`, `duration` |
//! | Azure LLM 2023, 2024 | `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` |
//! | BurstGPT | `Timestamp`, `Model`, `Request tokens`, `Response tokens`, `Total tokens`, `Log Type` |
//!
//! A row is one job, except in Azure Functions 2019. There a row has the number of invocations in each minute of a day,
//! and the seed determines their times within the minute. A row of 2021 began `duration` seconds before its end. Failed
//! requests of BurstGPT (no response tokens) are jobs too. Our own times are seconds from 0, or RFC 3339. Times without
//! an offset are UTC. Seconds from 0 and minutes of a day are used as they are. All other times are relative to the
//! earliest row of the file. Columns are found by their names. Unused columns may be missing, and further columns are
//! ignored.
//!
//! Sources: `AzureFunctionsDataset2019.md`, `AzureFunctionsInvocationTrace2021.md`, `AzureLLMInferenceDataset2023.md`
//! and `AzureLLMInferenceDataset2024.md` of github.com/Azure/AzurePublicDataset; the README of
//! github.com/HPMLL/BurstGPT. All of them are CC-BY. None is part of this project.

use std::path::Path;
use std::time::Duration;

use indexmap::IndexSet;
use queue::Class;

use super::trace::{Arrival, MAX_JOBS, MAX_LENGTH, Trace};
use table::{Row, Table};

mod formats;
mod table;

/// The maximum work of a job, in items. A larger number must be a mistake in the unit.
const MAX_ITEMS: f64 = 1e6;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Our own format.
    Own,
    /// Azure Functions of 2019 or 2021. The columns determine the year.
    AzureFunctions,
    /// Azure LLM inference of 2023 or 2024.
    AzureLlm,
    /// BurstGPT.
    BurstGpt,
}

/// Which rows are used, and how they become arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selection<'a> {
    /// Only rows of this pool (own), application or function (Azure Functions), or model (BurstGPT).
    pub pool: Option<&'a str>,
    /// The amount of a job's measure (tokens, seconds, `work`) that is one item of a batch, above 0.
    pub item_size: Option<f64>,
    /// The factor by which the time of the file is shortened, above 0.
    pub speedup: f64,
    /// The length of the trace. `None`: up to the last arrival.
    pub length: Option<Duration>,
    /// The seed for the time of an invocation within its minute, where the file has only the minute.
    pub seed: u64,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A row does not match the header, or the header does not match the format.
    #[error("{file} line {line}: {message}")]
    Row {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The fault.
        message: String,
    },
    /// A value is invalid for its column.
    #[error("{file} line {line}, column {column}: {value:?} {rule}")]
    Value {
        /// The file.
        file: String,
        /// The number of the line, from 1. If blank lines precede the line, the number of the first of them.
        line: u64,
        /// The name of the column.
        column: String,
        /// The value, cut off after 40 characters.
        value: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// No row belongs to the selected pool.
    #[error("{file}: no row has the pool {pool:?}")]
    NoSuchPool {
        /// The file.
        file: String,
        /// The selected pool.
        pool: String,
    },
    /// The file as a whole cannot be used.
    #[error("{file}: {message}")]
    File {
        /// The file.
        file: String,
        /// The fault.
        message: String,
    },
}

/// Reads the arrivals of a file.
pub fn read(file: &Path, format: Format, selection: &Selection<'_>) -> Result<Trace, ReadError> {
    let mut table = Table::open(file)?;
    let mut builder = TraceBuilder::new(*selection);
    match format {
        Format::Own => formats::own(&mut table, &mut builder)?,
        Format::AzureFunctions if table.has("end_timestamp") => {
            formats::azure_functions_2021(&mut table, &mut builder)?
        }
        Format::AzureFunctions => formats::azure_functions_2019(&mut table, &mut builder)?,
        Format::AzureLlm => formats::azure_llm(&mut table, &mut builder)?,
        Format::BurstGpt => formats::burst_gpt(&mut table, &mut builder)?,
    }
    builder.into_trace(&table)
}

/// The pools of a file in our own format, in the order of their first rows. Empty if the file has no column `pool`.
pub fn pools(file: &Path) -> Result<Vec<String>, ReadError> {
    let mut table = Table::open(file)?;
    table.column("time")?;
    let mut pools = IndexSet::new();
    if let Some(column) = table.find("pool") {
        table.rows(|row| {
            let pool = row.text(column);
            if !pools.contains(pool) {
                pools.insert(pool.to_owned());
            }
            Ok(())
        })?;
    }
    Ok(pools.into_iter().collect())
}

/// Collects the jobs of a file.
struct TraceBuilder<'a> {
    selection: Selection<'a>,
    /// The jobs: the time in nanoseconds on the clock of the file, and the work in items.
    jobs: Vec<(i128, f64)>,
    /// The earliest time of all rows, including other pools, so that all pools of a file share one beginning.
    earliest: Option<i128>,
    /// The work of the largest job, in items.
    largest: f64,
    /// The beginning of the trace on the clock of the file. `None`: the earliest time of all rows.
    begin: Option<i128>,
    /// The end of the trace on the clock of the file, if the format defines it.
    end: Option<i128>,
}

impl<'a> TraceBuilder<'a> {
    fn new(selection: Selection<'a>) -> Self {
        Self { selection, jobs: Vec::new(), earliest: None, largest: 0.0, begin: None, end: None }
    }

    /// Whether one of these pools is selected.
    fn selects(&self, pools: &[&str]) -> bool {
        self.selection.pool.is_none_or(|wanted| pools.contains(&wanted))
    }

    /// Adds the job of a row, if it is selected. The time of every row counts for `earliest`.
    fn add(&mut self, row: &Row<'_>, nanoseconds: i128, work: f64, is_selected: bool) -> Result<(), ReadError> {
        self.earliest = Some(self.earliest.map_or(nanoseconds, |earliest| earliest.min(nanoseconds)));
        if is_selected {
            self.check_jobs(row, 1)?;
            self.largest = self.largest.max(work);
            self.jobs.push((nanoseconds, work));
        }
        Ok(())
    }

    /// Rejects a row that would exceed the maximum number of jobs.
    fn check_jobs(&self, row: &Row<'_>, jobs: usize) -> Result<(), ReadError> {
        let jobs = self.jobs.len().saturating_add(jobs);
        if jobs > MAX_JOBS {
            return Err(row.fault(format!("makes {jobs} jobs, and a trace has at most {MAX_JOBS}; choose a pool")));
        }
        Ok(())
    }

    /// Converts a measure to items.
    fn items(&self, measured: f64) -> f64 {
        self.selection.item_size.map_or(1.0, |size| measured / size)
    }

    fn into_trace(mut self, table: &Table) -> Result<Trace, ReadError> {
        if let Some(pool) = self.selection.pool
            && self.jobs.is_empty()
        {
            return Err(table.no_such_pool(pool));
        }
        if self.largest > MAX_ITEMS {
            let message =
                format!("its largest job is {} items, more than {MAX_ITEMS}; give an item_size", self.largest);
            return Err(table.unfit(message));
        }
        self.jobs.sort_by_key(|(nanoseconds, _)| *nanoseconds);
        let begin = self.begin.or(self.earliest).unwrap_or(0);
        let first = Duration::from_nanos(u64::try_from(self.earliest.unwrap_or(begin) - begin).unwrap_or_default());
        if first > MAX_LENGTH {
            let (first, rule) = (first.as_secs(), "seconds count from the beginning of the trace");
            let advice = "write seconds since 1970 as RFC 3339, or subtract the first time";
            return Err(table.unfit(format!("its first time is {first} s, and {rule}; {advice}")));
        }
        let speedup = self.selection.speedup;
        // This cannot overflow: the table limits times, and the scenario limits speedups.
        let since = |nanoseconds: i128| Duration::from_secs_f64((nanoseconds - begin).max(0) as f64 / 1e9 / speedup);
        let jobs = self.jobs.iter().map(|(nanoseconds, work)| Arrival {
            at: since(*nanoseconds),
            work: *work,
            class: Class::Standard,
        });
        let mut jobs: Vec<Arrival> = jobs.collect();
        let last = self.end.map(since).into_iter().chain(jobs.last().map(|job| job.at)).max().unwrap_or_default();
        let length = self.selection.length.unwrap_or(last);
        if length > MAX_LENGTH {
            let days = MAX_LENGTH.as_secs() / 86_400;
            return Err(table.unfit(format!("lasts longer than {days} days; give a length, or a speedup")));
        }
        jobs.retain(|job| job.at <= length);
        Ok(Trace { jobs, length })
    }
}

#[cfg(test)]
mod tests;
