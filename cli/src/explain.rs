//! `millrace explain`: why a pool has its number of workers.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use client::Explanation;
use queue::PoolName;

use crate::connection::AdminArgs;
use crate::output::{escaped_lines, print_line};

/// Explain why a pool has its number of workers: the scaler's last answers, with everything that went into them
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// The pool
    #[arg(value_name = "POOL")]
    pool: PoolName,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the JSON of `/explain/POOL` instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) async fn explain(arguments: ExplainArgs) -> anyhow::Result<ExitCode> {
    let form = if arguments.json { Explanation::Json } else { Explanation::Text };
    let scaler = arguments.admin.open()?;
    let text = scaler.explain(arguments.pool.as_str(), form).await;
    let text = text.context("--admin: the address that `millrace up` or `millrace scaler` has as its --admin")?;
    print_line(format_args!("{}", escaped_lines(text.trim_end())));
    Ok(ExitCode::SUCCESS)
}
