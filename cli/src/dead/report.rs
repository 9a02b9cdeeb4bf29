//! A list of dead jobs as text for a terminal, or as JSON.

use std::io::{self, Write};

use client::BadEnding;
use serde_json::Value;

use crate::record::{attempts, text, time};
use crate::table::{shortened, table};

/// The longest error message in a list, in characters.
const LIST_WIDTH: usize = 60;

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
