//! The report of simulated runs: a table per trace, or a line of JSON per run.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Row, Table};
use service::Period;
use simulator::comparison::Comparison;
use simulator::report::RunReport;

use crate::table::{shortened, table};

/// The longest name in a cell, in characters.
const NAME_WIDTH: usize = 40;

/// One JSON object per trace and policy.
pub(super) fn print_lines(comparisons: &[Comparison<'_>], out: &mut dyn Write) -> io::Result<()> {
    for comparison in comparisons {
        for run in &comparison.runs {
            serde_json::to_writer(&mut *out, &RunReport::new(comparison, run))?;
            writeln!(out)?;
        }
    }
    Ok(())
}

/// A table per trace, with a row per policy.
pub(super) fn print_tables(comparisons: &[Comparison<'_>], out: &mut dyn Write) -> io::Result<()> {
    for comparison in comparisons {
        let (objective, trace) = (comparison.objective, comparison.trace);
        let (jobs, length) = (trace.jobs.len(), Period::new(Duration::from_secs(trace.length.as_secs())));
        writeln!(out, "{}: {jobs} jobs in {length}", comparison.name)?;
        writeln!(out, "{}", rows(comparison))?;
        let hours = |time: Duration| time.as_secs_f64() / 3600.0;
        write!(out, "objective: {} % within {} of their arrival; ", objective.percentile, objective.latency)?;
        write!(out, "lower bound: {:.2} worker-hours", hours(comparison.bound))?;
        match &comparison.upper_bound {
            Some(upper) => {
                writeln!(out, "; upper bound: {:.2}, of {}\n", hours(upper.worker_time), upper.policy)?;
            }
            None => writeln!(out, "\n")?,
        }
    }
    Ok(())
}

fn rows(comparison: &Comparison<'_>) -> Table {
    let header = [
        "policy",
        "within",
        "late from\nzero",
        "objective",
        "p50",
        "p95",
        "p99",
        "worker-\nhours",
        "x upper\nbound",
        "starts",
        "cold\nstarts",
        "peak\nworkers",
        "largest\nbacklog",
    ];
    let mut rows = table(&header);
    rows.set_content_arrangement(ContentArrangement::Dynamic);
    for run in &comparison.runs {
        let line = RunReport::new(comparison, run);
        let verdict = match (line.objective_met, line.unfinished) {
            (true, _) => "met".to_owned(),
            (false, 0) => "missed".to_owned(),
            (false, unfinished) => format!("missed, {unfinished} unfinished"),
        };
        rows.add_row(Row::from(vec![
            shortened(&run.policy, NAME_WIDTH),
            format!("{:.2} %", floored(line.within_objective * 100.0)),
            format!("{:.2} %", line.late_from_zero * 100.0),
            verdict,
            latency(line.latency_p50_seconds),
            latency(line.latency_p95_seconds),
            latency(line.latency_p99_seconds),
            format!("{:.2}", line.worker_hours),
            line.times_upper_bound.map_or_else(|| "-".to_owned(), |times| format!("{times:.2}")),
            line.starts.to_string(),
            line.cold_starts.to_string(),
            line.peak_workers.to_string(),
            line.largest_backlog.to_string(),
        ]));
    }
    for column in rows.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    rows
}

/// The share with two decimals, rounded down: 99.999 % must not be printed as 100 %.
fn floored(percent: f64) -> f64 {
    (percent * 100.0).floor() / 100.0
}

fn latency(seconds: Option<f64>) -> String {
    match seconds {
        None => "never".to_owned(),
        Some(seconds) if seconds < 10.0 => format!("{seconds:.2} s"),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}
