//! The server: from the start to the end of a gateway.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use queue::{Blobs, Ledger, PoolName, Producer};
use service::http::{self, HttpLimits};
use service::tls::Protocol;
use service::{Health, Tls};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::budget::BodyBudget;
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
/// After `stop` the gateway is not ready, and it answers long polls at once with the current state. It still accepts
/// connections for [`GatewaySettings::lame_duck`], until load balancers have seen its readiness. Then the requests in flight have [`GatewaySettings::drain_timeout`] to finish. Accepted jobs are safe at any
/// moment, also during the stop.
pub async fn run(listener: TcpListener, gateway: Gateway, stop: CancellationToken) -> io::Result<()> {
    let Gateway { pools, ledger, producer, blobs, settings, health } = gateway;
    metrics::describe();
    let (drain_timeout, lame_duck) = (settings.drain_timeout.get(), settings.lame_duck.get());
    let tls = match settings.tls.clone() {
        Some(tls) => Some(Tls::open("gateway.tls", tls, Protocol::Http).await.map_err(io::Error::other)?),
        None => None,
    };
    let (intake, confirmation_writer) = Intake::new(pools, Arc::clone(&ledger), producer, blobs.clone());
    let serving_ended = CancellationToken::new();
    let writing = tokio::spawn(confirmation_writer.run(serving_ended.clone()));
    let budget = BodyBudget::new(settings.max_body.as_usize());
    let state = Arc::new(GatewayState { intake, ledger, blobs, budget, settings, stop: stop.clone() });

    let router = routes::router(state, &health);
    health.ready(CONDITION);
    let listening_ended = CancellationToken::new();
    let ending = end_listening(stop, lame_duck, health, listening_ended.clone());
    let serving = http::serve(listener, tls, router, HttpLimits::default(), listening_ended.clone());
    tokio::select! {
        ((), ()) = async { tokio::join!(serving, ending) } => {}
        () = drain_timed_out(&listening_ended, drain_timeout) => {
            tracing::warn!(after = ?drain_timeout, "requests in flight were cut off");
        }
    }
    serving_ended.cancel();
    if let Err(error) = writing.await {
        tracing::error!(%error, "the task that records confirmed publications in the ledger failed");
    }
    Ok(())
}

/// Waits for `stop`, reports that the gateway is not ready, and ends the listening after the time `lame_duck`.
async fn end_listening(
    stop: CancellationToken,
    lame_duck: Duration,
    health: Health,
    listening_ended: CancellationToken,
) {
    stop.cancelled().await;
    health.not_ready(CONDITION, "stopping");
    tokio::time::sleep(lame_duck).await;
    listening_ended.cancel();
}

async fn drain_timed_out(stop: &CancellationToken, timeout: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(timeout).await;
}
