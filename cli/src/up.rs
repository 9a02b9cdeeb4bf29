//! `millrace up`: everything on this machine, with an autoscaler in KEDA's place.

mod autoscaler;
mod fleet;

use std::time::Duration;

use anyhow::{Context, bail};
use proto::externalscaler::external_scaler_client::ExternalScalerClient;
use scaler::Journal;
use service::Health;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::arguments::Configuration;
use crate::output::print_line;
use crate::services::{self, Opened};
use crate::settings::Settings;
use autoscaler::Autoscaler;
use fleet::Fleet;

/// Runs gateway, scaler and autoscalers until `stop` or until one of them fails; then stops the workers.
///
/// Standard output shows the addresses, and each change of a pool's number of workers.
pub(crate) async fn up(
    settings: &Settings,
    configuration: &Configuration,
    journal: Journal,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // The autoscaler is the only client here, and it connects in plain text. A setting that has no effect would be a
    // surprise, so it is refused.
    if settings.scaler.tls.is_some() {
        bail!("scaler.tls: is for `millrace scaler`; `up` calls its own scaler in plain text");
    }
    if !settings.scaler.namespaces.is_open() {
        bail!(
            "scaler.namespaces: is for `millrace scaler`; `up` calls its own scaler about every pool, from no namespace"
        );
    }
    // A model that no worker can load is reported now. Otherwise every worker would start, fail and be restarted.
    for (pool, of_pool) in &settings.pools {
        services::open_model(pool, of_pool)?;
    }
    let pools = services::pools_of_gateway(settings)?;
    let http = services::bind("gateway.listen", &settings.gateway.listen).await?;
    let grpc = services::bind("scaler.listen", &settings.scaler.listen).await?;
    let opened = Opened::open(settings).await?;
    print_line(format_args!("gateway {}", services::gateway_url(settings, &http)?));
    print_line(format_args!("scaler grpc://{}", grpc.local_addr()?));
    let scaler = Endpoint::from_shared(format!("http://{}", grpc.local_addr()?))?
        .connect_timeout(Duration::from_secs(2))
        .connect_lazy();
    let scaler = ExternalScalerClient::new(scaler);

    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let mut running: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for (pool, of_pool) in &settings.pools {
        let pid = std::process::id().to_string();
        let arguments = ["worker", "--follow-parent", &pid, "--pool", pool].map(str::to_owned);
        let arguments = arguments.into_iter().chain(configuration.to_arguments()).collect();
        let grace = of_pool.worker.drain_timeout.get() + fleet::MARGIN;
        let fleet = Fleet::new(pool.clone(), program.clone(), arguments, grace);
        let autoscaler = Autoscaler::new(pool.clone(), of_pool.scale.rules(), scaler.clone(), fleet);
        let stop = stop.clone();
        running.spawn(async move {
            autoscaler.run(stop).await;
            Ok(())
        });
    }
    let (settings_of, opened_of, health_of, stop_of) = (settings.clone(), opened.clone(), health.clone(), stop.clone());
    running.spawn(async move { services::gateway(&settings_of, pools, &opened_of, http, health_of, stop_of).await });
    let (settings_of, stop_of) = (settings.clone(), stop.clone());
    running.spawn(async move { services::scaler(&settings_of, &opened.backend, grpc, journal, health, stop_of).await });

    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        let ended = ended.context("a service panicked").flatten();
        // When one service ends, the others stop too.
        stop.cancel();
        outcome = outcome.and(ended);
    }
    outcome
}

/// Cancels `stop` when the parent process, whose id is `parent`, ends for any reason.
#[cfg(target_os = "linux")]
pub(crate) fn follow_parent(parent: u32, stop: &CancellationToken) -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).context("cannot follow the parent process")?;
    // If the parent ended before the call above, the system sends no signal. This process then has another parent.
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(parent) {
        stop.cancel();
    }
    Ok(())
}

/// This system does not signal the end of a parent process. The worker runs until it is stopped.
#[cfg(not(target_os = "linux"))]
pub(crate) fn follow_parent(_: u32, _: &CancellationToken) -> anyhow::Result<()> {
    Ok(())
}
