//! Dead jobs as text for a terminal, or as JSON.

use std::io::{self, Write};

use client::BadEnding;
use serde_json::Value;

use crate::table::{shortened, table};

/// The longest error message in a list, in characters.
const LIST_WIDTH: usize = 60;

/// The longest text in the report of one job, in characters.
const REPORT_WIDTH: usize = 2000;

pub(super) fn list(out: &mut dyn Write, jobs: &[Value], ending: BadEnding, json: bool) -> io::Result<()> {
    if json {
        return jobs.iter().try_for_each(|job| writeln!(out, "{job}"));
    }
    if jobs.is_empty() {
        return writeln!(out, "no {} jobs", ending.as_str());
    }
    let mut rows = table(&["job", "pool", "attempts", "ended", "error", "message"]);
    for job in jobs {
        let error = &job["error"];
        rows.add_row([
            text(&job["id"]),
            text(&job["pool"]),
            attempts(job),
            time(&job["finished_at"]),
            text(&error["type"]),
            shortened(&text(&error["message"]), LIST_WIDTH),
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

fn attempts(job: &Value) -> String {
    format!("{} of {}", text(&job["attempts"]), text(&job["max_attempts"]))
}

fn error(error: &Value) -> String {
    shortened(&format!("{}: {}", text(&error["type"]), text(&error["message"])), REPORT_WIDTH)
}

/// A time without its fraction of a second.
fn time(value: &Value) -> String {
    let text = text(value);
    match text.split_once('.') {
        Some((seconds, fraction)) if fraction.ends_with('Z') => format!("{seconds}Z"),
        _ => text,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => shortened(text, REPORT_WIDTH),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    }
}
