//! Dead jobs on a terminal.

use std::io::{self, Write};

use serde_json::Value;

use super::Ending;
use crate::table::{shortened, table};

/// The longest text of an error in a list, in characters.
const SHOWN: usize = 60;

/// The longest in a job's own report.
const TOLD: usize = 2000;

pub(super) fn list(out: &mut dyn Write, jobs: &[Value], state: Ending, json: bool) -> io::Result<()> {
    if json {
        return jobs.iter().try_for_each(|job| writeln!(out, "{job}"));
    }
    if jobs.is_empty() {
        return writeln!(out, "no {} jobs", state.as_str());
    }
    let mut rows = table(&["job", "pool", "attempts", "ended", "error", "message"]);
    for job in jobs {
        let error = &job["error"];
        rows.add_row([
            text(&job["id"]),
            text(&job["pool"]),
            attempts(job),
            moment(&job["finished_at"]),
            text(&error["type"]),
            shortened(&text(&error["message"]), SHOWN),
        ]);
    }
    writeln!(out, "{rows}")
}

pub(super) fn show(out: &mut dyn Write, job: &Value, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{job}");
    }
    let mut lines = vec![
        ("job", text(&job["id"])),
        ("pool", text(&job["pool"])),
        ("class", text(&job["class"])),
        ("state", text(&job["state"])),
        ("attempts", attempts(job)),
        ("submitted", moment(&job["created_at"])),
    ];
    if job["finished_at"].is_string() {
        lines.push(("ended", moment(&job["finished_at"])));
    }
    if job["error"].is_object() {
        lines.push(("error", error(&job["error"])));
    }
    for (name, value) in lines {
        writeln!(out, "{name:<10} {value}")?;
    }
    let Some(history) = job["history"].as_array() else { return Ok(()) };
    let mut rows = table(&["attempt", "worker", "started", "ended", "error"]);
    for attempt in history {
        rows.add_row([
            text(&attempt["number"]),
            text(&attempt["worker"]),
            moment(&attempt["started_at"]),
            moment(&attempt["ended_at"]),
            error(&attempt["error"]),
        ]);
    }
    writeln!(out, "{rows}")
}

fn attempts(job: &Value) -> String {
    format!("{} of {}", text(&job["attempts"]), text(&job["max_attempts"]))
}

fn error(error: &Value) -> String {
    shortened(&format!("{}: {}", text(&error["type"]), text(&error["message"])), TOLD)
}

/// A moment to the second, which is what a person compares.
fn moment(value: &Value) -> String {
    let text = text(value);
    match text.split_once('.') {
        Some((seconds, fraction)) if fraction.ends_with('Z') => format!("{seconds}Z"),
        _ => text,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => shortened(text, TOLD),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    }
}
