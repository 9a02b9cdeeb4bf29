//! The status of one job as text for a terminal, or as JSON.

use std::io::{self, Write};

use serde_json::Value;

use crate::table::{shortened, table};

/// The longest text, in characters.
const REPORT_WIDTH: usize = 2000;

/// Prints the status document of a job.
pub(crate) fn show(out: &mut dyn Write, job: &Value, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{job}");
    }
    let mut lines = vec![
        ("job", text(&job["id"])),
        ("pool", text(&job["pool"])),
        ("class", text(&job["class"])),
        ("state", text(&job["state"])),
        ("attempts", attempts(job)),
        ("submitted", time(&job["created_at"])),
    ];
    if job["finished_at"].is_string() {
        lines.push(("ended", time(&job["finished_at"])));
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
            time(&attempt["started_at"]),
            time(&attempt["ended_at"]),
            error(&attempt["error"]),
        ]);
    }
    writeln!(out, "{rows}")
}

pub(crate) fn attempts(job: &Value) -> String {
    format!("{} of {}", text(&job["attempts"]), text(&job["max_attempts"]))
}

fn error(error: &Value) -> String {
    shortened(&format!("{}: {}", text(&error["type"]), text(&error["message"])), REPORT_WIDTH)
}

/// A time without its fraction of a second.
pub(crate) fn time(value: &Value) -> String {
    let text = text(value);
    match text.split_once('.') {
        Some((seconds, fraction)) if fraction.ends_with('Z') => format!("{seconds}Z"),
        _ => text,
    }
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => shortened(text, REPORT_WIDTH),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    }
}
