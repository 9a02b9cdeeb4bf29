//! Reports of this worker: its heartbeat to the roster, with the measured batch times, and its metrics.

pub(crate) mod heartbeat;
pub(crate) mod metrics;
pub(crate) mod spans;
