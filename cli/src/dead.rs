//! `millrace dead`: list, show, requeue and purge the jobs that ended without success.

mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::{BadEnding, DeadJobs, Error, Gateway, Payload};
use queue::{JobId, PoolName};

use crate::connection::GatewayArgs;
use crate::output::{Output, escaped, print_error};
use crate::{exit, media_type, record};

/// List, show, requeue or purge dead and failed jobs.
///
/// A job is dead when it has no attempt left, and failed when the job itself was at fault. Both can be requeued, with the
/// same input or with another one.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeadArgs {
    #[command(flatten)]
    pub gateway: GatewayArgs,

    #[command(subcommand)]
    pub command: DeadCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadCommand {
    /// List jobs, the latest ending first
    List {
        #[command(flatten)]
        selection: Selection,
        /// The largest number of jobs to list
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Print one JSON object per job instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show one job: its attempts, their workers and their errors
    Show {
        /// The id of the job
        #[arg(value_name = "JOB")]
        id: JobId,
        /// Write the job's input to this file
        #[arg(long, value_name = "FILE")]
        save_input: Option<PathBuf>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Run jobs again: the named ones, or all of a pool
    #[command(group = clap::ArgGroup::new("what").required(true).args(["ids", "pool"]))]
    Requeue {
        /// The ids of the jobs
        #[arg(value_name = "JOB")]
        ids: Vec<JobId>,
        #[command(flatten)]
        selection: Selection,
        /// A file that replaces the input of the job; only for one job
        #[arg(long, value_name = "FILE", conflicts_with = "pool")]
        input: Option<PathBuf>,
        /// The media type of the new input [default: by the file's extension]
        #[arg(long, requires = "input")]
        media_type: Option<String>,
    },
    /// Delete the records of jobs now: the named ones, or all of a pool
    #[command(group = clap::ArgGroup::new("what").required(true).args(["ids", "pool"]))]
    Purge {
        /// The ids of the jobs
        #[arg(value_name = "JOB")]
        ids: Vec<JobId>,
        #[command(flatten)]
        selection: Selection,
        /// Confirm that all jobs of the pool are to be deleted
        #[arg(long)]
        yes: bool,
    },
}

/// Selects jobs by their pool and the way in which they ended.
#[derive(Debug, Clone, Args)]
pub(crate) struct Selection {
    /// Only jobs of this pool
    #[arg(long, short)]
    pub pool: Option<PoolName>,
    /// Only jobs in this state
    #[arg(long, value_enum, default_value_t = EndState::Dead)]
    pub state: EndState,
}

/// The state of a job that ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EndState {
    /// No attempt is left
    Dead,
    /// The job itself was at fault
    Failed,
}

impl From<EndState> for BadEnding {
    fn from(state: EndState) -> Self {
        match state {
            EndState::Dead => Self::Dead,
            EndState::Failed => Self::Failed,
        }
    }
}

impl Selection {
    fn jobs(&self) -> DeadJobs {
        DeadJobs { ending: self.ending(), pool: self.pool.as_ref().map(|pool| pool.as_str().to_owned()) }
    }

    fn ending(&self) -> BadEnding {
        self.state.into()
    }
}

/// Runs the command and prints to standard output.
pub(crate) async fn dead(args: DeadArgs) -> anyhow::Result<ExitCode> {
    let all_done = run(args, &mut Output).await?;
    Ok(exit::of_answer(all_done))
}

/// Returns `false` if the gateway refused some of the jobs. The reasons are in the output.
async fn run(args: DeadArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<bool> {
    let gateway = args.gateway.open()?;
    match args.command {
        DeadCommand::List { selection, limit, json } => {
            let jobs = gateway.dead_jobs(&selection.jobs(), limit).await?;
            report::list(out, &jobs, selection.ending(), json)?;
            Ok(true)
        }
        DeadCommand::Show { id, save_input, json } => {
            record::show(out, &gateway.job(id.as_str()).await?, json)?;
            if let Some(file) = save_input {
                let saved = save(&gateway, &id, &file).await?;
                // With --json, standard output has JSON alone.
                if json { print_error(format_args!("{saved}")) } else { writeln!(out, "{saved}")? }
            }
            Ok(true)
        }
        DeadCommand::Requeue { ids, selection, input, media_type } => {
            if input.is_some() && ids.len() > 1 {
                bail!("--input: is for one job, and {} are named", ids.len());
            }
            let ids = if selection.pool.is_some() { all_ids(&gateway, &selection).await? } else { ids };
            let input = match input {
                None => None,
                Some(file) => Some(read_input(&file, media_type).await?),
            };
            each(out, "requeued", &ids, async |id| gateway.requeue(id.as_str(), input.as_ref()).await).await
        }
        DeadCommand::Purge { ids, selection, yes } => {
            let state = selection.ending().as_str();
            match &selection.pool {
                Some(pool) if !yes => bail!("--yes: is missing; all {state} jobs of pool {pool} would be deleted"),
                Some(pool) => {
                    let purged = gateway.purge(pool.as_str(), selection.ending()).await?;
                    writeln!(out, "{purged} {state} jobs of pool {pool} purged")?;
                    Ok(true)
                }
                None => each(out, "purged", &ids, async |id| gateway.delete(id.as_str()).await).await,
            }
        }
    }
}

/// The ids of all selected jobs.
async fn all_ids(gateway: &Gateway, selection: &Selection) -> anyhow::Result<Vec<JobId>> {
    let jobs = gateway.dead_jobs(&selection.jobs(), usize::MAX).await?;
    let id = |job: &serde_json::Value| {
        serde_json::from_value(job["id"].clone()).context("the gateway listed a job without an id")
    };
    jobs.iter().map(id).collect()
}

/// Writes the input of a job to a file. Returns a report of it.
async fn save(gateway: &Gateway, id: &JobId, file: &Path) -> anyhow::Result<String> {
    let Payload { media_type, bytes } = gateway.input(id.as_str()).await?;
    tokio::fs::write(file, &bytes).await.with_context(|| format!("cannot write {}", file.display()))?;
    let (media_type, file) = (escaped(&media_type), escaped(&file.to_string_lossy()));
    Ok(format!("input of {} bytes ({media_type}) written to {file}", bytes.len()))
}

async fn read_input(file: &Path, media_type: Option<String>) -> anyhow::Result<Payload> {
    let bytes = tokio::fs::read(file).await.with_context(|| format!("cannot read {}", file.display()))?;
    if bytes.is_empty() {
        bail!("--input: {} is empty; leave --input out to use the job's own input", file.display());
    }
    let media_type = media_type.unwrap_or_else(|| media_type::of_file(file).to_owned());
    Ok(Payload { media_type, bytes: bytes.into() })
}

/// Calls `act` for each job and prints its refusals. An error of the gateway ends the loop: the next call would fail too.
async fn each(
    out: &mut (dyn Write + Send),
    done: &str,
    ids: &[JobId],
    mut act: impl AsyncFnMut(&JobId) -> Result<(), Error>,
) -> anyhow::Result<bool> {
    let mut count = 0;
    for id in ids {
        match act(id).await {
            Ok(()) => count += 1,
            Err(Error::Refused(refusal)) if !refusal.status.is_server_error() => {
                writeln!(out, "{id}: {}", escaped(&refusal.to_string()))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    writeln!(out, "{count} of {} jobs {done}", ids.len())?;
    Ok(count == ids.len())
}

#[cfg(test)]
mod tests;
