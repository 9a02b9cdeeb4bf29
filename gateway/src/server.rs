//! The server: what all requests share, the routes, and how it stops.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Router, middleware};
use queue::{Blobs, Ledger, PoolName, Producer};
use service::Health;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::observe;
use crate::intake::confirmations::{self, Confirmations};
use crate::intake::pool::Pool;
use crate::jobs::dead;
use crate::jobs::follow;
use crate::jobs::requeue;
use crate::jobs::submit;
use crate::metrics;
use crate::settings::GatewaySettings;

pub(crate) const JOBS: &str = "/v1/pools/{pool}/jobs";
const EVENT: &str = "/v1/jobs";
const JOB: &str = "/v1/jobs/{id}";
const RESULT: &str = "/v1/jobs/{id}/result";
const CANCEL: &str = "/v1/jobs/{id}/cancel";
const INPUT: &str = "/v1/jobs/{id}/input";
const REQUEUE: &str = "/v1/jobs/{id}/requeue";
const DEAD: &str = "/v1/dead";

/// All routes, as metrics name them.
pub(crate) const ROUTES: [&str; 10] =
    [JOBS, JOB, RESULT, CANCEL, INPUT, REQUEUE, DEAD, "/livez", "/readyz", "/metrics"];

/// The condition of [`Health`] that is the gateway's own.
const CONDITION: &str = "gateway";

/// What a gateway works with.
pub struct Gateway {
    /// The pools it takes jobs for.
    pub pools: BTreeMap<PoolName, Pool>,
    /// Where jobs are accounted for.
    pub ledger: Arc<dyn Ledger>,
    /// Where jobs go.
    pub producer: Arc<dyn Producer>,
    /// Where big inputs and outputs lie.
    pub blobs: Blobs,
    /// Its limits.
    pub settings: GatewaySettings,
    /// Whether the process is ready: served here, and told when the gateway stops.
    pub health: Health,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) pools: BTreeMap<PoolName, Pool>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) blobs: Blobs,
    pub(crate) settings: GatewaySettings,
    pub(crate) confirmations: Confirmations,
    pub(crate) stop: CancellationToken,
}

/// Serves on `listener` until `stop`.
///
/// Then readiness goes off, no connection is accepted any more, long polls are answered at once with what stands, and
/// the other requests in flight have [`GatewaySettings::drain_timeout`] to finish. Jobs that were accepted are safe at
/// any moment, this one included. An error: the socket cannot be served at all.
pub async fn run(listener: TcpListener, gateway: Gateway, stop: CancellationToken) -> io::Result<()> {
    let Gateway { pools, ledger, producer, blobs, settings, health } = gateway;
    metrics::describe();
    let drain_timeout = settings.drain_timeout.get();
    let (confirmations, confirmer) = confirmations::channel(Arc::clone(&ledger));
    let closing = CancellationToken::new();
    let confirming = tokio::spawn(confirmer.run(closing.clone()));
    let shared = Shared { pools, ledger, producer, blobs, settings, confirmations, stop: stop.clone() };

    let told = health.clone();
    let stopping = stop.clone();
    let signal = async move {
        stopping.cancelled().await;
        told.not_ready(CONDITION, "stopping");
    };
    let listener = listener.tap_io(|connection| {
        // Answers are small and wait for nothing: held back by Nagle's algorithm they would be late for no gain.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    health.ready(CONDITION);
    let serving = axum::serve(listener, router(shared, &health)).with_graceful_shutdown(signal);
    let served = tokio::select! {
        served = serving => served,
        () = drained(&stop, drain_timeout) => {
            tracing::warn!(after = ?drain_timeout, "requests in flight were cut off");
            Ok(())
        }
    };
    closing.cancel();
    if let Err(error) = confirming.await {
        tracing::error!(%error, "the task that tells the ledger of confirmed jobs failed");
    }
    served
}

async fn drained(stop: &CancellationToken, timeout: std::time::Duration) {
    stop.cancelled().await;
    tokio::time::sleep(timeout).await;
}

fn router(shared: Shared, health: &Health) -> Router {
    Router::new()
        .route(JOBS, post(submit::submit))
        .route(EVENT, get(follow::status_of_event))
        .route(JOB, get(follow::status).delete(dead::forget))
        .route(RESULT, get(follow::result))
        .route(CANCEL, post(follow::cancel))
        .route(INPUT, get(follow::input))
        .route(REQUEUE, post(requeue::requeue))
        .route(DEAD, get(dead::list).delete(dead::purge))
        .with_state(Arc::new(shared))
        .merge(health.router())
        .fallback(observe::unknown_route)
        .method_not_allowed_fallback(observe::wrong_method)
        .layer(middleware::from_fn(observe::observe))
}
