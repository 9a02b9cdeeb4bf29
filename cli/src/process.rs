//! The subcommands.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use axum::Router;
use clap::CommandFactory;
use clap_complete::Shell;
use scaler::Journal;
use service::tls::Protocol;
use service::{Health, Telemetry, Tls, TlsSettings, config, stop};
use tokio_util::sync::CancellationToken;

use crate::arguments::{Arguments, Command, ConfigCommand, Configuration, ModelCommand};
use crate::output::{Output, print_line};
use crate::services::{self, Opened};
use crate::settings::Settings;
use crate::{dead, demo, doctor, explain, job, metrics, reference, simulate, submit, up};

/// Runs one subcommand; a service runs until a signal stops it. `started` is the start of the process. Must not be called
/// on a worker thread of the runtime, because it waits for the export of the last spans.
pub async fn run(arguments: Arguments, started: Instant) -> anyhow::Result<ExitCode> {
    let ended = run_command(arguments, started).await;
    Telemetry::shutdown();
    ended
}

async fn run_command(arguments: Arguments, started: Instant) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Up { configuration, admin } => {
            let (settings, stop) = start(&configuration, "millrace")?;
            let (journal, health) = (Journal::default(), Health::new());
            for part in ["gateway", "scaler"] {
                health.not_ready(part, "starting");
            }
            verify("gateway.tls", settings.gateway.tls.as_ref()).await?;
            serve_admin(admin.admin, &settings, &health, journal.router(settings.pool_names()?)).await?;
            up::up(&settings, &configuration, journal, health, stop).await?;
        }
        Command::Gateway { configuration } => {
            let (settings, stop) = start(&configuration, "millrace-gateway")?;
            let pools = services::pools_of_gateway(&settings)?;
            verify("gateway.tls", settings.gateway.tls.as_ref()).await?;
            let listener = services::bind("gateway.listen", &settings.gateway.listen).await?;
            let opened = Opened::open(&settings).await?;
            print_line(format_args!("gateway {}", services::gateway_url(&settings, &listener)?));
            services::gateway(&settings, pools, &opened, listener, Health::new(), stop).await?;
        }
        Command::Scaler { configuration, admin } => {
            let (settings, stop) = start(&configuration, "millrace-scaler")?;
            verify("scaler.tls", settings.scaler.tls.as_ref()).await?;
            let listener = services::bind("scaler.listen", &settings.scaler.listen).await?;
            let backend = backends::open(&settings.backend_urls()?).await?;
            print_line(format_args!("scaler grpc://{}", listener.local_addr()?));
            let health = Health::new();
            health.not_ready("scaler", "starting");
            let journal = Journal::default();
            serve_admin(admin.admin, &settings, &health, journal.router(settings.pool_names()?)).await?;
            services::scaler(&settings, &backend, listener, journal, health, stop).await?;
        }
        Command::Worker { configuration, pool, admin, follow_parent } => {
            let (settings, stop) = start(&configuration, "millrace-worker")?;
            if let Some(parent) = follow_parent {
                up::follow_parent(parent, &stop)?;
            }
            let (of_pool, model) = services::pool_of_worker(&settings, &pool)?;
            let opened = Opened::open_for(&settings, of_pool).await?;
            let health = Health::new();
            serve_admin(admin.admin, &settings, &health, Router::new()).await?;
            services::worker(of_pool, model, &opened, pool.parse()?, health, started, stop).await?;
        }
        Command::Submit(arguments) => return submit::submit(arguments).await,
        Command::Explain(arguments) => return explain::explain(arguments).await,
        Command::Status(arguments) => return job::status(arguments).await,
        Command::Get(arguments) => return job::get(arguments).await,
        Command::Wait(arguments) => return job::wait(arguments).await,
        Command::Cancel(arguments) => return job::cancel(arguments).await,
        Command::Dead(arguments) => return dead::dead(arguments).await,
        Command::Doctor { configuration, json, measure } => {
            return doctor::doctor(&load(&configuration)?, json, measure.get()).await;
        }
        Command::Simulate(arguments) => simulate::simulate(&arguments, &mut Output)?,
        Command::Config { command } => configuration(command)?,
        Command::Completions { shell } => Output.write_all(&completions(shell))?,
        Command::Model { command: ModelCommand::Demo { model, folder, weights, labels, seed } } => {
            demo::write(model, &folder, weights.as_deref(), labels.as_deref(), seed)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first steps of every service: read the configuration, start logging and tracing, install the signal handlers.
fn start(configuration: &Configuration, service: &'static str) -> anyhow::Result<(Settings, CancellationToken)> {
    let settings: Settings = load(configuration)?;
    Telemetry::start(&settings.telemetry, service)?;
    metrics::describe();
    let stop = stop::on_signal().context("cannot install the signal handlers")?;
    Ok((settings, stop))
}

fn load(configuration: &Configuration) -> anyhow::Result<Settings> {
    config::load(&configuration.sources()).map_err(|faults| anyhow::anyhow!("the configuration has faults\n{faults}"))
}

fn configuration(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check { configuration } => {
            let settings = load(&configuration)?;
            services::pools_of_gateway(&settings)?;
            print_line(format_args!("the configuration has no faults"));
        }
        ConfigCommand::Show { configuration } => {
            writeln!(Output, "{}", serde_json::to_string_pretty(&load(&configuration)?)?)?;
        }
        ConfigCommand::Schema => {
            writeln!(Output, "{}", serde_json::to_string_pretty(&config::schema::<Settings>())?)?;
        }
        ConfigCommand::Reference => write!(Output, "{}", reference::reference())?,
    }
    Ok(())
}

/// The script that completes commands and options in a shell.
fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "millrace", &mut script);
    script
}

/// Checks the files for TLS. This happens before a socket is bound: otherwise a client could connect to a process that
/// then refuses its files and exits.
async fn verify(key: &'static str, tls: Option<&TlsSettings>) -> anyhow::Result<()> {
    let Some(tls) = tls else { return Ok(()) };
    tls.verify(key).await.map_err(|faults| anyhow::anyhow!("the configuration has faults\n{faults}"))
}

/// Serves health, metrics and `more` in the background until the end of the process, if there is an admin address.
async fn serve_admin(
    address: Option<SocketAddr>,
    settings: &Settings,
    health: &Health,
    more: Router,
) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    let tls = match settings.admin.tls.clone() {
        Some(tls) => Some(Tls::open("admin.tls", tls, Protocol::Http).await?),
        None => None,
    };
    let listener = services::bind("--admin", &address.to_string()).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    print_line(format_args!("admin {scheme}://{}", listener.local_addr()?));
    let health = health.clone();
    tokio::spawn(async move {
        if let Err(error) = health.serve(more, listener, tls, CancellationToken::new()).await {
            tracing::error!(%error, "the admin server failed: health and metrics are no longer served");
        }
    });
    Ok(())
}
