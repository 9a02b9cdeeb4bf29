//! Reports of this worker to the roster and to the metrics.

pub(crate) mod batch_time_model;
pub(crate) mod heartbeat;
pub(crate) mod metrics;
