//! `millrace submit`: submits files as jobs, waits for their results, and prints them.

mod files;
mod outcome;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use client::{Gateway, NewJob, NoResult, Payload};
use futures::StreamExt;
use queue::{Class, JobId, PoolName};
use service::Period;

use files::InputFile;
use outcome::Outcome;
use report::Report;

use crate::connection::GatewayArgs;
use crate::output::Output;
use crate::{exit, progress};

/// Submit files to a pool as jobs, wait for their results, and print them.
///
/// A request that fails on the way is repeated under the same job id, so the job runs once. The exit code is 0 if every
/// job succeeded, and 3 if one did not.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub gateway: GatewayArgs,

    /// The pool that runs the jobs
    #[arg(long, short)]
    pub pool: PoolName,

    /// Files, or folders that are searched for files
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub paths: Vec<PathBuf>,

    /// The media type of every file [default: by its extension]
    #[arg(long)]
    pub media_type: Option<String>,

    /// The priority of the jobs: premium, standard or batch
    #[arg(long)]
    pub class: Option<Class>,

    /// The longest time that a job may wait to be started, such as 30s
    #[arg(long, value_name = "DURATION")]
    pub deadline: Option<Period>,

    /// The longest time from the submission of a job to its result
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub timeout: Period,

    /// The number of jobs that are submitted at the same time
    #[arg(long, value_name = "JOBS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// Print one JSON object per job when the job ends, instead of a table
    #[arg(long)]
    pub json: bool,

    /// Take the true label from the file name (the text after the last `-`, as in 0007-3.png), and print it beside the
    /// prediction, with the accuracy
    #[arg(long)]
    pub truth_from_name: bool,

    /// The largest number of rows in the table; jobs that did not succeed are shown first
    #[arg(long, default_value_t = 50)]
    pub rows: usize,
}

/// Runs the command and prints to standard output.
pub(crate) async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let report = submit_to(&args, &mut Output).await?;
    Ok(exit::of_answer(report.all_succeeded()))
}

async fn submit_to(args: &SubmitArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Report> {
    let files = files::collect(&args.paths, args.media_type.as_deref())?;
    let gateway = args.gateway.open()?;
    // An unreachable gateway is reported once, not once per file.
    gateway.reach(args.timeout.get()).await?;

    let started = Instant::now();
    let count = files.len();
    let bar = progress::bar(count, "jobs");
    let gateway = &gateway;
    let running = files
        .into_iter()
        .enumerate()
        .map(async |(index, file): (usize, InputFile)| (index, run(gateway, args, file).await));
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

/// Runs one file as a job.
async fn run(gateway: &Gateway, args: &SubmitArgs, file: InputFile) -> Outcome {
    let started = Instant::now();
    let id = JobId::generate();
    let result = result_of(gateway, args, &id, &file).await;
    let truth = if args.truth_from_name { file.truth() } else { None };
    Outcome { path: file.path, id, elapsed: started.elapsed(), truth, result }
}

async fn result_of(gateway: &Gateway, args: &SubmitArgs, id: &JobId, file: &InputFile) -> Result<Payload, NoResult> {
    let body = tokio::fs::read(&file.path)
        .await
        .map_err(|error| NoResult { state: "unreadable".to_owned(), reason: error.to_string() })?;
    let job = NewJob {
        pool: args.pool.as_str().to_owned(),
        media_type: file.media_type.clone(),
        body: body.into(),
        class: args.class.map(|class| class.as_str().to_owned()),
        deadline: args.deadline.map(Period::get),
    };
    gateway.run(id.as_str(), &job, args.timeout.get()).await
}

#[cfg(test)]
mod tests;
