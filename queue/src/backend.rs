//! The three roles together.

use std::sync::Arc;

use crate::{Broker, Ledger, Roster};

/// Where jobs wait and are accounted for: broker, ledger and roster.
#[derive(Clone)]
pub struct Backend {
    /// Where jobs wait.
    pub broker: Arc<dyn Broker>,
    /// The records of what became of every job.
    pub ledger: Arc<dyn Ledger>,
    /// The live workers.
    pub roster: Arc<dyn Roster>,
}
