//! The report of all files.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table};

use super::outcome::Outcome;
use crate::output::escaped;
use crate::table::table;

/// The outcomes of all files, in the order of the files.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) elapsed: Duration,
    pub(super) with_truth: bool,
}

impl Report {
    pub(super) fn all_succeeded(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.result.is_ok())
    }

    /// Prints a table of at most `rows` rows, and a summary.
    pub(super) fn print(&self, out: &mut dyn Write, rows: usize) -> io::Result<()> {
        let shown = self.shown(rows);
        if !shown.is_empty() {
            writeln!(out, "{}", self.table(&shown))?;
        }
        if shown.len() < self.outcomes.len() {
            writeln!(out, "... and {} more", self.outcomes.len() - shown.len())?;
        }
        writeln!(out, "{}", self.summary())
    }

    /// The outcomes that the table shows, in the order of the files. If the table has too few rows, failures are shown
    /// first, then wrong predictions.
    fn shown(&self, rows: usize) -> Vec<&Outcome> {
        let mut ranked: Vec<(usize, &Outcome)> = self.outcomes.iter().enumerate().collect();
        ranked.sort_by_key(|(index, outcome)| {
            let rank = match (&outcome.result, outcome.is_right()) {
                (Err(_), _) => 0,
                (Ok(_), Some(false)) => 1,
                (Ok(_), _) => 2,
            };
            (rank, *index)
        });
        ranked.truncate(rows);
        ranked.sort_by_key(|(index, _)| *index);
        ranked.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn table(&self, shown: &[&Outcome]) -> Table {
        let mut header = vec!["file", "job", "state", "result", "truth", "time"];
        if !self.with_truth {
            header.retain(|name| *name != "truth");
        }
        let last = header.len() - 1;
        let mut table = table(&header);
        for outcome in shown {
            let name = outcome.path.file_name().unwrap_or(outcome.path.as_os_str()).to_string_lossy();
            let texts = [&*name, outcome.id.as_str(), outcome.state(), &outcome.summary()];
            let mut row = texts.map(escaped).to_vec();
            if self.with_truth {
                row.push(escaped(&truth(outcome)));
            }
            row.push(format!("{:.0} ms", outcome.elapsed.as_secs_f64() * 1000.0));
            table.add_row(row);
        }
        if let Some(time) = table.column_mut(last) {
            time.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn summary(&self) -> String {
        let jobs = self.outcomes.len();
        let succeeded = self.outcomes.iter().filter(|outcome| outcome.result.is_ok()).count();
        let seconds = self.elapsed.as_secs_f64();
        let mut summary = format!("{jobs} jobs: {succeeded} succeeded");
        if succeeded < jobs {
            summary += &format!(", {} did not", jobs - succeeded);
        }
        summary += &format!("; {seconds:.1} s");
        if succeeded > 0 {
            summary += &format!(", {:.0} jobs/s", succeeded as f64 / seconds.max(f64::EPSILON));
        }
        if self.with_truth {
            summary += &format!("\n{}", self.accuracy());
        }
        summary
    }

    /// The accuracy over all files whose name has a label. A job without a prediction counts as wrong.
    fn accuracy(&self) -> String {
        let labelled = self.outcomes.iter().filter(|outcome| outcome.truth.is_some()).count();
        let right = self.outcomes.iter().filter(|outcome| outcome.is_right() == Some(true)).count();
        if labelled == 0 {
            return "accuracy: unknown, because no file name has a label, as 0007-3.png has".to_owned();
        }
        format!("accuracy: {:.2} % ({right} of {labelled})", 100.0 * right as f64 / labelled as f64)
    }
}

fn truth(outcome: &Outcome) -> String {
    let truth = outcome.truth.as_deref().unwrap_or("?");
    let mark = if outcome.is_right() == Some(false) { "  wrong" } else { "" };
    format!("{truth}{mark}")
}

#[cfg(test)]
mod tests {
    use client::{NoResult, Payload};

    use super::*;

    fn outcome(name: &str, result: Result<&str, &str>) -> Outcome {
        let output = |label: &str| Payload {
            media_type: "application/json".to_owned(),
            bytes: format!(r#"{{"predictions":[{{"label":"{label}","probability":1}}]}}"#).into(),
        };
        Outcome {
            path: format!("digits/{name}.png").into(),
            id: name.parse().unwrap(),
            elapsed: Duration::from_millis(7),
            truth: name.rsplit_once('-').map(|(_, truth)| truth.to_owned()),
            result: result
                .map(output)
                .map_err(|reason| NoResult { state: "failed".to_owned(), reason: reason.to_owned() }),
        }
    }

    fn printed(outcomes: Vec<Outcome>, rows: usize) -> String {
        let report = Report { outcomes, elapsed: Duration::from_secs(2), with_truth: true };
        let mut out = Vec::new();
        report.print(&mut out, rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn predictions_are_beside_the_true_label_and_the_accuracy_counts_every_file() {
        let outcomes = vec![outcome("a-3", Ok("3")), outcome("b-4", Ok("9")), outcome("c-5", Err("broken JPEG"))];
        let text = printed(outcomes, 50);
        assert!(text.contains("3 (100.0 %)") && text.contains("wrong") && text.contains("broken JPEG"), "{text}");
        assert!(text.contains("3 jobs: 2 succeeded, 1 did not; 2.0 s, 1 jobs/s\n"), "{text}");
        assert!(text.contains("accuracy: 33.33 % (1 of 3)"), "{text}");
    }

    #[test]
    fn control_characters_of_names_labels_and_errors_are_escaped() {
        let mut jobs = vec![outcome("a-3", Ok("\u{1b}[31m3")), outcome("b-4", Err("bad\u{1b}]0;x\u{7}"))];
        jobs[0].path = "x\u{1b}[2J-4.png".into();
        jobs[0].truth = Some("\u{9b}4".to_owned());
        let text = printed(jobs, 50);
        assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
        assert!(text.contains("x\\u{1b}[2J-4.png") && text.contains("bad\\u{1b}]0;x\\u{7}"), "{text}");
    }

    #[test]
    fn the_rate_counts_only_jobs_that_succeeded() {
        let text = printed(vec![outcome("a-3", Err("broken JPEG")), outcome("b-4", Err("broken JPEG"))], 50);
        assert!(text.contains("2 jobs: 0 succeeded, 2 did not; 2.0 s\n"), "{text}");
    }

    #[test]
    fn failures_are_shown_before_successes() {
        let outcomes = vec![outcome("a-3", Ok("3")), outcome("b-4", Ok("4")), outcome("c-5", Err("broken JPEG"))];
        let text = printed(outcomes, 1);
        assert!(text.contains("c-5.png") && !text.contains("a-3.png"), "{text}");
        assert!(text.contains("... and 2 more"), "{text}");
    }
}
