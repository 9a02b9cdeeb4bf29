//! The three roles together.

use std::sync::Arc;

use crate::{Broker, Ledger, Roster};

/// The three roles of one installation: broker, ledger and roster.
#[derive(Clone)]
pub struct Backend {
    /// Where jobs wait.
    pub broker: Arc<dyn Broker>,
    /// The records of all jobs.
    pub ledger: Arc<dyn Ledger>,
    /// The live workers.
    pub roster: Arc<dyn Roster>,
}
