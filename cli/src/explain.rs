//! `millrace explain`: why a pool has the workers it has.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use queue::PoolName;

use crate::http::{innermost, plain_url};
use crate::process::say;

/// Say why a pool was given the workers it was given: the scaler's last answers, with everything that went into them
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

/// A scaler that has not answered by then does not.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn explain(arguments: ExplainArgs) -> anyhow::Result<ExitCode> {
    let url = format!("{}/explain/{}", plain_url("--admin", &arguments.admin)?, arguments.pool);
    let accept = if arguments.json { "application/json" } else { "text/plain" };
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let asked = client.get(&url).header("accept", accept).send().await;
    let answer = asked.map_err(|error| anyhow::anyhow!("--admin: {url}: {}", innermost(&error)))?;
    let (status, text) = (answer.status(), answer.text().await.with_context(|| url.clone())?);
    if !status.is_success() {
        bail!("{url}: {status}: {}", text.trim());
    }
    say(format_args!("{}", text.trim_end()));
    Ok(ExitCode::SUCCESS)
}
