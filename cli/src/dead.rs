//! `millrace dead`: jobs that ended badly, seen, tried again, forgotten.

mod client;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use queue::{JobId, PoolName};

use crate::submit::files;
use client::Client;

/// See, try again or forget the jobs that ended badly.
///
/// A job is dead when none of its attempts is left, and failed when it was itself at fault. Both can be tried again, with
/// the same input or an edited one.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeadArgs {
    /// The gateway to ask
    #[arg(long, value_name = "URL", env = "MILLRACE_GATEWAY", default_value = "http://127.0.0.1:8080", global = true)]
    pub gateway: String,

    #[command(subcommand)]
    pub command: DeadCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadCommand {
    /// List them, those that ended last first
    List {
        #[command(flatten)]
        which: Which,
        /// The most jobs to list
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Print one JSON object per job instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show one job: what was tried, by whom, and how it failed
    Show {
        /// Its id
        #[arg(value_name = "JOB")]
        id: JobId,
        /// Write its input to this file, to look at or edit
        #[arg(long, value_name = "FILE")]
        save_input: Option<PathBuf>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Try jobs again: those named, or all of a pool
    #[command(group = clap::ArgGroup::new("what").required(true).args(["ids", "pool"]))]
    Requeue {
        /// Their ids
        #[arg(value_name = "JOB")]
        ids: Vec<JobId>,
        #[command(flatten)]
        which: Which,
        /// The input to try it with instead of its own; for one job
        #[arg(long, value_name = "FILE", conflicts_with = "pool")]
        input: Option<PathBuf>,
        /// The media type of that input [default: by its extension]
        #[arg(long, requires = "input")]
        media_type: Option<String>,
    },
    /// Forget jobs now: those named, or all of a pool
    #[command(group = clap::ArgGroup::new("what").required(true).args(["ids", "pool"]))]
    Purge {
        /// Their ids
        #[arg(value_name = "JOB")]
        ids: Vec<JobId>,
        #[command(flatten)]
        which: Which,
        /// Yes, all of the pool
        #[arg(long)]
        yes: bool,
    },
}

/// Which jobs are meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Those of one pool
    #[arg(long, short)]
    pub pool: Option<PoolName>,
    /// How they ended
    #[arg(long, value_enum, default_value_t = Ending::Dead)]
    pub state: Ending,
}

/// How a job ended badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ending {
    /// No attempt is left
    Dead,
    /// The job itself was at fault
    Failed,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Failed => "failed",
        }
    }
}

/// Does what the arguments say, and prints to standard output.
pub(crate) async fn dead(args: DeadArgs) -> anyhow::Result<ExitCode> {
    let all_done = run(args, &mut io::stdout()).await?;
    Ok(if all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `false`: some of the jobs could not be dealt with, as was said.
async fn run(args: DeadArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<bool> {
    let client = Client::new(&args.gateway)?;
    match args.command {
        DeadCommand::List { which, limit, json } => {
            let jobs = client.list(&which, limit).await?;
            report::list(out, &jobs, which.state, json)?;
        }
        DeadCommand::Show { id, save_input, json } => {
            report::show(out, &client.job(&id).await?, json)?;
            if let Some(file) = save_input {
                let input = client.input(&id).await?;
                tokio::fs::write(&file, &input.bytes)
                    .await
                    .with_context(|| format!("cannot write {}", file.display()))?;
                let (bytes, media_type) = (input.bytes.len(), input.media_type);
                writeln!(out, "input of {bytes} bytes ({media_type}) written to {}", file.display())?;
            }
        }
        DeadCommand::Requeue { ids, which, input, media_type } => {
            if input.is_some() && ids.len() > 1 {
                bail!("--input: is for one job, and {} are named", ids.len());
            }
            let ids = if which.pool.is_some() { client.ids(&which).await? } else { ids };
            let input = match input {
                None => None,
                Some(file) => {
                    let bytes =
                        tokio::fs::read(&file).await.with_context(|| format!("cannot read {}", file.display()))?;
                    if bytes.is_empty() {
                        bail!("--input: {} is empty; leave it out to keep the job's own input", file.display());
                    }
                    let media_type = media_type.unwrap_or_else(|| files::by_extension(&file).to_owned());
                    Some(client::Input { media_type, bytes: bytes.into() })
                }
            };
            return each(out, "requeued", &ids, async |id| client.requeue(id, input.as_ref()).await).await;
        }
        DeadCommand::Purge { ids, which, yes } => match &which.pool {
            Some(pool) if !yes => {
                bail!("--yes: is missing; all {} jobs of pool {pool} would be forgotten", which.state.as_str())
            }
            Some(pool) => {
                let purged = client.purge(pool, which.state).await?;
                writeln!(out, "{purged} {} jobs of pool {pool} forgotten", which.state.as_str())?;
            }
            None => return each(out, "forgotten", &ids, async |id| client.forget(id).await).await,
        },
    }
    Ok(true)
}

/// Does it to each job, says what came of it, and goes on after one that is refused.
async fn each(
    out: &mut (dyn Write + Send),
    done: &str,
    ids: &[JobId],
    mut act: impl AsyncFnMut(&JobId) -> Result<(), client::Refused>,
) -> anyhow::Result<bool> {
    let mut count = 0;
    for id in ids {
        match act(id).await {
            Ok(()) => count += 1,
            // The next would be no better off.
            Err(client::Refused::Away(error)) => return Err(error),
            Err(client::Refused::Told(reason)) => writeln!(out, "{id}: {reason}")?,
        }
    }
    writeln!(out, "{count} of {} jobs {done}", ids.len())?;
    Ok(count == ids.len())
}

#[cfg(test)]
mod tests;
