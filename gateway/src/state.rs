//! The state that all requests share.

use std::sync::Arc;

use queue::{Blobs, Ledger};
use tokio_util::sync::CancellationToken;

use crate::http::budget::BodyBudget;
use crate::intake::Intake;
use crate::settings::GatewaySettings;

/// The state as axum passes it to a handler.
pub(crate) type SharedState = Arc<GatewayState>;

/// The state that all requests share.
pub(crate) struct GatewayState {
    /// Accepts jobs.
    pub(crate) intake: Intake,
    /// The records of all jobs.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// Large inputs and outputs.
    pub(crate) blobs: Blobs,
    /// The room for bodies.
    pub(crate) budget: BodyBudget,
    /// The limits of this gateway.
    pub(crate) settings: GatewaySettings,
    /// Cancelled when the gateway stops: long polls are answered then.
    pub(crate) stop: CancellationToken,
}
