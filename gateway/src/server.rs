//! The server: from the start to the end of a gateway.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use queue::{Blobs, Ledger, PoolName, Producer};
use service::Health;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::intake::{Intake, Pool};
use crate::metrics;
use crate::routes;
use crate::settings::GatewaySettings;
use crate::state::GatewayState;

/// The gateway's own condition in [`Health`].
const CONDITION: &str = "gateway";

/// The parts of a gateway.
pub struct Gateway {
    /// The pools for which jobs are accepted.
    pub pools: BTreeMap<PoolName, Pool>,
    /// Where the records of jobs are.
    pub ledger: Arc<dyn Ledger>,
    /// Publishes jobs to the broker.
    pub producer: Arc<dyn Producer>,
    /// Where large inputs and outputs are.
    pub blobs: Blobs,
    /// Its limits.
    pub settings: GatewaySettings,
    /// The readiness of the process. The gateway serves it, and sets its own condition to not ready when it stops.
    pub health: Health,
}

/// Serves on `listener` until `stop`.
///
/// After `stop` the gateway is not ready and accepts no connection. It answers long polls at once with the current
/// state. The other requests in flight have [`GatewaySettings::drain_timeout`] to finish. Accepted jobs are safe at any
/// moment, also during the stop. An error means that the socket cannot be served.
pub async fn run(listener: TcpListener, gateway: Gateway, stop: CancellationToken) -> io::Result<()> {
    let Gateway { pools, ledger, producer, blobs, settings, health } = gateway;
    metrics::describe();
    let drain_timeout = settings.drain_timeout.get();
    let (intake, confirmation_writer) = Intake::new(pools, Arc::clone(&ledger), producer, blobs.clone());
    let serving_ended = CancellationToken::new();
    let writing = tokio::spawn(confirmation_writer.run(serving_ended.clone()));
    let state = Arc::new(GatewayState { intake, ledger, blobs, settings, stop: stop.clone() });

    let router = routes::router(state, &health);
    health.ready(CONDITION);
    let shutdown = stopping(stop.clone(), health);
    let listener = listener.tap_io(|connection| {
        // The gateway writes small answers, each in one piece, so Nagle's algorithm would only delay them.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown);
    let served = tokio::select! {
        served = serving => served,
        () = drain_timed_out(&stop, drain_timeout) => {
            tracing::warn!(after = ?drain_timeout, "requests in flight were cut off");
            Ok(())
        }
    };
    serving_ended.cancel();
    if let Err(error) = writing.await {
        tracing::error!(%error, "the task that records confirmed publications in the ledger failed");
    }
    served
}

/// Waits for `stop`, then reports that the gateway is not ready.
async fn stopping(stop: CancellationToken, health: Health) {
    stop.cancelled().await;
    health.not_ready(CONDITION, "stopping");
}

async fn drain_timed_out(stop: &CancellationToken, timeout: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(timeout).await;
}
