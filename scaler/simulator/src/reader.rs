//! Arrivals from files of comma-separated values: our own, and public traces.
//!
//! | format | columns |
//! |---|---|
//! | own | `time`; if there, `pool` and `work` |
//! | Azure Functions 2019 | `HashOwner`, `HashApp`, `HashFunction`, `Trigger`, `1` to `1440` |
//! | Azure Functions 2021 | `app`, `func`, `end_timestamp`, `duration` |
//! | Azure LLM 2023, 2024 | `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` |
//! | BurstGPT | `Timestamp`, `Model`, `Request tokens`, `Response tokens`, `Total tokens`, `Log Type` |
//!
//! A row is a job, but with Azure Functions 2019: there it says how many began in each minute of a day, and chance says
//! where in it. A row of 2021 began `duration` seconds before its end. BurstGPT's failed requests (no response tokens)
//! are jobs too. Our own times are seconds from 0, or RFC 3339; times without an offset are UTC. All but seconds from 0
//! and minutes of a day count from the earliest of the file. Columns are found by their names: those that are not
//! needed may be absent, and others be there.
//!
//! Sources: `AzureFunctionsDataset2019.md`, `AzureFunctionsInvocationTrace2021.md`, `AzureLLMInferenceDataset2023.md`
//! and `AzureLLMInferenceDataset2024.md` of github.com/Azure/AzurePublicDataset; the README of
//! github.com/HPMLL/BurstGPT. All of them are CC-BY; none is part of this project.

use std::path::Path;
use std::time::Duration;

use indexmap::IndexSet;

use super::trace::{Arrival, LONGEST, MOST_JOBS, Trace};
use table::{Row, Table};

mod formats;
mod table;

/// The most work that a job can be, in items: more must be a mistake in the unit.
const MOST_ITEMS: f64 = 1e6;

/// What the columns mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Ours.
    Own,
    /// Azure Functions of 2019 or 2021: the columns say which.
    AzureFunctions,
    /// Azure LLM inference of 2023 or 2024.
    AzureLlm,
    /// BurstGPT.
    BurstGpt,
}

/// Which rows are jobs, and how they become arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selection<'a> {
    /// Only rows of this pool (own), application or function (Azure Functions), or model (BurstGPT).
    pub pool: Option<&'a str>,
    /// How much of what is measured of a job is one item of a batch, above 0.
    pub item_size: Option<f64>,
    /// Time passes so many times as fast, above 0.
    pub speedup: f64,
    /// Where it is cut off; after the last arrival unless given.
    pub length: Option<Duration>,
    /// Where in its minute an invocation is, if only its minute is known.
    pub seed: u64,
}

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened or read.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A row is not like the header, or the header not like the format.
    #[error("{file} line {line}: {message}")]
    Row {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        message: String,
    },
    /// A value is not what its column should hold.
    #[error("{file} line {line}, column {column}: {value:?} {rule}")]
    Value {
        /// The file.
        file: String,
        /// The line, from 1; where blank lines precede it, the first of them.
        line: u64,
        /// The column's name.
        column: String,
        /// The value, cut off after 40 characters.
        value: String,
        /// What it is not.
        rule: String,
    },
    /// No job is of the pool that was asked for.
    #[error("{file}: no row has the pool {pool:?}")]
    NoSuchPool {
        /// The file.
        file: String,
        /// What was looked for.
        pool: String,
    },
    /// The file as a whole is not what is asked for.
    #[error("{file}: {message}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        message: String,
    },
}

/// Reads the arrivals of a file.
pub fn read(file: &Path, format: Format, selection: &Selection<'_>) -> Result<Trace, ReadError> {
    let mut table = Table::open(file)?;
    let mut gathered = Gathered::new(*selection);
    match format {
        Format::Own => formats::own(&mut table, &mut gathered)?,
        Format::AzureFunctions if table.has("end_timestamp") => {
            formats::azure_functions_2021(&mut table, &mut gathered)?
        }
        Format::AzureFunctions => formats::azure_functions_2019(&mut table, &mut gathered)?,
        Format::AzureLlm => formats::azure_llm(&mut table, &mut gathered)?,
        Format::BurstGpt => formats::burst_gpt(&mut table, &mut gathered)?,
    }
    gathered.into_trace(&table)
}

/// The pools of a file in our own format, in the order in which they first appear; none where it has no such column.
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

/// What has been read so far.
struct Gathered<'a> {
    selection: Selection<'a>,
    /// In nanoseconds on the file's own clock, and in items.
    jobs: Vec<(i128, f64)>,
    /// The earliest of all rows, those of other pools included, so that the pools of a file stay together.
    earliest: Option<i128>,
    /// The work of the largest job, in items.
    largest: f64,
    /// Where the file's clock has its 0; the earliest row's time unless said.
    begin: Option<i128>,
    /// Where it ends, if it says so, in nanoseconds.
    end: Option<i128>,
}

impl<'a> Gathered<'a> {
    fn new(selection: Selection<'a>) -> Self {
        Self { selection, jobs: Vec::new(), earliest: None, largest: 0.0, begin: None, end: None }
    }

    /// Whether jobs of any of these pools are meant.
    fn wants(&self, pools: &[&str]) -> bool {
        self.selection.pool.is_none_or(|wanted| pools.contains(&wanted))
    }

    /// Takes a job of this row, which counts where its pool is wanted.
    fn add(&mut self, row: &Row<'_>, nanoseconds: i128, work: f64, is_wanted: bool) -> Result<(), ReadError> {
        self.earliest = Some(self.earliest.map_or(nanoseconds, |earliest| earliest.min(nanoseconds)));
        if is_wanted {
            self.make_room(row, 1)?;
            self.largest = self.largest.max(work);
            self.jobs.push((nanoseconds, work));
        }
        Ok(())
    }

    /// Refuses a row with more jobs than a trace can have.
    fn make_room(&self, row: &Row<'_>, jobs: usize) -> Result<(), ReadError> {
        let jobs = self.jobs.len().saturating_add(jobs);
        if jobs > MOST_JOBS {
            return Err(row.fault(format!("makes {jobs} jobs, and a trace has at most {MOST_JOBS}; choose a pool")));
        }
        Ok(())
    }

    /// What is measured of a job, in items.
    fn items(&self, measured: f64) -> f64 {
        self.selection.item_size.map_or(1.0, |size| measured / size)
    }

    fn into_trace(mut self, table: &Table) -> Result<Trace, ReadError> {
        if let Some(pool) = self.selection.pool
            && self.jobs.is_empty()
        {
            return Err(table.no_such_pool(pool));
        }
        if self.largest > MOST_ITEMS {
            let message =
                format!("its largest job is {} items, more than {MOST_ITEMS}; give an item_size", self.largest);
            return Err(table.unfit(message));
        }
        self.jobs.sort_by_key(|(nanoseconds, _)| *nanoseconds);
        let begin = self.begin.or(self.earliest).unwrap_or(0);
        let speedup = self.selection.speedup;
        // The table bounds times, and the scenario speedups, so that this does not overflow.
        let since = |nanoseconds: i128| Duration::from_secs_f64((nanoseconds - begin).max(0) as f64 / 1e9 / speedup);
        let jobs = self.jobs.iter().map(|(nanoseconds, work)| Arrival { at: since(*nanoseconds), work: *work });
        let mut jobs: Vec<Arrival> = jobs.collect();
        let last = self.end.map(since).into_iter().chain(jobs.last().map(|job| job.at)).max().unwrap_or_default();
        let length = self.selection.length.unwrap_or(last);
        if length > LONGEST {
            let days = LONGEST.as_secs() / 86_400;
            return Err(table.unfit(format!("lasts longer than {days} days; give a length, or a speedup")));
        }
        jobs.retain(|job| job.at <= length);
        Ok(Trace { jobs, length })
    }
}

#[cfg(test)]
mod tests;
