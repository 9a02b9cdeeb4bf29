//! `millrace status`, `get`, `wait` and `cancel`: one job that was submitted.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use client::Error;
use queue::JobId;
use serde_json::Value;
use service::Period;

use crate::connection::GatewayArgs;
use crate::exit::{self, BadAnswer};
use crate::output::Output;
use crate::record;

/// Show the status of a job: its state, its attempts and its error
#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Write the result of a job to standard output, as the model returned it
#[derive(Debug, Clone, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Write the result to this file instead
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Wait until a job has ended, and show its status
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The longest time to wait
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    timeout: Period,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Cancel a job that has not ended, and show its status
#[derive(Debug, Clone, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// A job and its gateway.
#[derive(Debug, Clone, Args)]
struct JobArgs {
    /// The id of the job
    #[arg(value_name = "JOB")]
    id: JobId,
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(crate) async fn status(arguments: StatusArgs) -> anyhow::Result<ExitCode> {
    let StatusArgs { job: JobArgs { id, gateway }, json } = arguments;
    record::show(&mut Output, &gateway.open()?.job(id.as_str()).await?, json)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn get(arguments: GetArgs) -> anyhow::Result<ExitCode> {
    let GetArgs { job: JobArgs { id, gateway }, output } = arguments;
    let result = match gateway.open()?.result(id.as_str()).await {
        Ok(result) => result,
        Err(Error::Refused(refusal)) => match refusal.state.as_deref() {
            Some("queued" | "leased" | "retry") => return Err(BadAnswer::NotEnded(refusal.reason).into()),
            Some(_) => return Err(BadAnswer::Bad(refusal.reason).into()),
            None => return Err(Error::Refused(refusal).into()),
        },
        Err(error) => return Err(error.into()),
    };
    match output {
        Some(file) => {
            let written = tokio::fs::write(&file, &result.bytes).await;
            written.with_context(|| format!("--output: {file:?} cannot be written"))?;
        }
        None => {
            Output.write_all(&result.bytes)?;
            Output.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn wait(arguments: WaitArgs) -> anyhow::Result<ExitCode> {
    let WaitArgs { job: JobArgs { id, gateway }, timeout, json } = arguments;
    let gateway = gateway.open()?;
    // An unknown job and an unreachable gateway are reported at once. Later errors of the connection are not.
    gateway.job(id.as_str()).await?;
    let job = gateway.ended(id.as_str(), timeout.get()).await.map_err(|error| match error.state.as_str() {
        "timeout" => BadAnswer::NotEnded(error.reason).into(),
        _ => anyhow!("{}", error.reason),
    })?;
    record::show(&mut Output, &job, json)?;
    Ok(exit::of_answer(has_succeeded(&job)))
}

pub(crate) async fn cancel(arguments: CancelArgs) -> anyhow::Result<ExitCode> {
    let CancelArgs { job: JobArgs { id, gateway }, json } = arguments;
    let job = gateway.open()?.cancel(id.as_str()).await.map_err(|error| match error {
        // The job has ended in another state.
        Error::Refused(refusal) if refusal.state.is_some() => BadAnswer::Bad(refusal.reason).into(),
        error => anyhow::Error::from(error),
    })?;
    record::show(&mut Output, &job, json)?;
    Ok(ExitCode::SUCCESS)
}

fn has_succeeded(job: &Value) -> bool {
    job["state"] == "succeeded"
}
