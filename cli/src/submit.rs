//! `millrace submit`: sends files as jobs, waits for their results, and prints them.

mod client;
pub(crate) mod files;
mod outcome;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use queue::{Class, PoolName};
use service::Period;

use client::{Client, Options};
use files::InputFile;
use report::Report;

/// Send files to a pool as jobs, wait for their results, and print them.
///
/// A job whose request fails on the way is sent again under the same id, so that it runs once. The exit code is 0 when
/// every job succeeded, else 1.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubmitArgs {
    /// The gateway to send them to
    #[arg(long, value_name = "URL", env = "MILLRACE_GATEWAY", default_value = "http://127.0.0.1:8080")]
    pub gateway: String,

    /// The pool to run them
    #[arg(long, short)]
    pub pool: PoolName,

    /// Files, or folders to be searched for files
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub paths: Vec<PathBuf>,

    /// The media type of every file [default: by its extension]
    #[arg(long)]
    pub media_type: Option<String>,

    /// The priority of the jobs: premium, standard or batch
    #[arg(long)]
    pub class: Option<Class>,

    /// How long a job may wait to be started, such as 30s
    #[arg(long, value_name = "DURATION")]
    pub deadline: Option<Period>,

    /// How long each job may take from sending it to its result
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub timeout: Period,

    /// How many jobs to have under way at once
    #[arg(long, value_name = "JOBS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// Print one JSON object per job, as it ends, instead of a table
    #[arg(long)]
    pub json: bool,

    /// The truth is in the names: what follows the last `-`, as in 0007-3.png; print it beside the prediction, and the accuracy
    #[arg(long)]
    pub truth_from_name: bool,

    /// The most rows of the table; jobs that did not succeed come before others
    #[arg(long, default_value_t = 50)]
    pub rows: usize,
}

/// Does what the arguments say, and prints to standard output.
pub(crate) async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let report = submit_to(&args, &mut io::stdout()).await?;
    Ok(if report.all_succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn submit_to(args: &SubmitArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Report> {
    let files = files::collect(&args.paths, args.media_type.as_deref())?;
    let client = Client::new(
        &args.gateway,
        Options { pool: args.pool.clone(), class: args.class, deadline: args.deadline, timeout: args.timeout.get() },
    )?;
    // A gateway that is away is told once, not once per file.
    client.reach().await?;

    let started = Instant::now();
    let bar = progress_bar(files.len() as u64);
    let count = files.len();
    let client = &client;
    let running = files
        .into_iter()
        .enumerate()
        .map(async |(index, file): (usize, InputFile)| (index, client.run(file, args.truth_from_name).await));
    let mut running = futures::stream::iter(running).buffer_unordered(usize::from(args.concurrency));
    let mut outcomes = Vec::with_capacity(count);
    while let Some((index, outcome)) = running.next().await {
        if args.json {
            let line = outcome.to_json();
            bar.suspend(|| writeln!(out, "{line}")).context("cannot write a result")?;
        }
        outcomes.push((index, outcome));
        bar.inc(1);
    }
    bar.finish_and_clear();
    outcomes.sort_by_key(|(index, _)| *index);

    let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let report = Report { outcomes, elapsed: started.elapsed(), with_truth: args.truth_from_name };
    if !args.json {
        report.print(out, args.rows).context("cannot write the results")?;
    }
    Ok(report)
}

/// On standard error, and nowhere if that is no terminal.
fn progress_bar(jobs: u64) -> ProgressBar {
    let bar = ProgressBar::new(jobs);
    let template = "{elapsed_precise} {bar:40} {pos}/{len} jobs, {per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests;
