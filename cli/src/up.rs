//! `millrace up`: everything on this machine, and an autoscaler in KEDA's place.

mod autoscaler;
mod fleet;

use std::time::Duration;

use anyhow::Context;
use proto::externalscaler::external_scaler_client::ExternalScalerClient;
use service::Health;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::arguments::Configuration;
use crate::services::{self, Opened};
use crate::settings::Settings;
use autoscaler::Autoscaler;
use fleet::Fleet;

/// Runs gateway, scaler and autoscalers until `stop` or until one of them fails; then stops the workers.
///
/// Standard output says where to connect and how many workers each pool has.
pub(crate) async fn up(
    settings: &Settings,
    configuration: &Configuration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // A model that no worker could load is better known now than by workers that end again and again.
    for (pool, of_pool) in &settings.pools {
        services::open_model(pool, of_pool)?;
    }
    let http = services::bind("gateway.listen", &settings.gateway.listen).await?;
    let grpc = services::bind("scaler.listen", &settings.scaler.listen).await?;
    let opened = Opened::open(settings).await?;
    println!("gateway http://{}", http.local_addr()?);
    println!("scaler grpc://{}", grpc.local_addr()?);
    let scaler = Endpoint::from_shared(format!("http://{}", grpc.local_addr()?))?
        .connect_timeout(Duration::from_secs(2))
        .connect_lazy();
    let scaler = ExternalScalerClient::new(scaler);

    let program = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut running: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for (pool, of_pool) in &settings.pools {
        let arguments = ["worker", "--follow-parent", "--pool", pool].map(str::to_owned);
        let arguments = arguments.into_iter().chain(configuration.to_arguments()).collect();
        let fleet = Fleet::new(pool.clone(), program.clone(), arguments);
        let autoscaler = Autoscaler::new(pool.clone(), of_pool.scale.rules(), scaler.clone(), fleet);
        let stop = stop.clone();
        running.spawn(async move {
            autoscaler.run(stop).await;
            Ok(())
        });
    }
    let health = Health::new();
    let (settings_of, opened_of, health_of, stop_of) = (settings.clone(), opened.clone(), health.clone(), stop.clone());
    running.spawn(async move { services::gateway(&settings_of, &opened_of, http, health_of, stop_of).await });
    let (settings_of, stop_of) = (settings.clone(), stop.clone());
    running.spawn(async move { services::scaler(&settings_of, &opened, grpc, health, stop_of).await });

    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        let ended = ended.context("a service panicked").flatten();
        // Whoever ends first, told to or not, takes the others along.
        stop.cancel();
        outcome = outcome.and(ended);
    }
    outcome
}

/// Cancels `stop` when the process that started this one ends, however it ends.
#[cfg(target_os = "linux")]
pub(crate) fn follow_parent(stop: &CancellationToken) -> anyhow::Result<()> {
    let parent = nix::unistd::getppid();
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).context("cannot follow the parent process")?;
    // It may have ended before the call above; then the signal never comes.
    if nix::unistd::getppid() != parent || parent.as_raw() == 1 {
        stop.cancel();
    }
    Ok(())
}

/// Nothing tells a process of its parent's end here: it works on until it is stopped.
#[cfg(not(target_os = "linux"))]
pub(crate) fn follow_parent(_: &CancellationToken) -> anyhow::Result<()> {
    Ok(())
}
