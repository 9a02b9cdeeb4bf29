//! `millrace explain`: why a pool has its number of workers.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use client::{Explanation, Scaler};
use queue::PoolName;

use crate::output::{escaped_lines, print_line};

/// Explain why a pool has its number of workers: the scaler's last answers, with everything that went into them
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// The pool
    #[arg(value_name = "POOL")]
    pool: PoolName,
    /// The scaler's admin address (`millrace scaler --admin`, `millrace up --admin`)
    #[arg(long, value_name = "URL", env = "MILLRACE_SCALER_ADMIN", default_value = "http://127.0.0.1:9091")]
    admin: String,
    /// Print the JSON of `/explain/POOL` instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) async fn explain(arguments: ExplainArgs) -> anyhow::Result<ExitCode> {
    let form = if arguments.json { Explanation::Json } else { Explanation::Text };
    let scaler = Scaler::new(&arguments.admin).map_err(|error| anyhow!("--admin: {error}"))?;
    let explained = scaler.explain(arguments.pool.as_str(), form).await;
    let text = explained.map_err(|error| anyhow!("--admin: {error}"))?;
    print_line(format_args!("{}", escaped_lines(text.trim_end())));
    Ok(ExitCode::SUCCESS)
}
