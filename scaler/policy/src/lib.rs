//! How many workers a pool needs: pure arithmetic over readings of the pool.
//!
//! ```text
//! reading → history → decision ← scaling ← trigger (a ScaledObject's metadata)
//!                        └→ replicas (the arithmetic of KEDA and the HPA)
//! ```
//!
//! This crate has no clock, task or I/O. The caller passes readings and times, so the scaler and the simulator share
//! it.

pub mod backlog;
mod decision;
pub mod history;
mod keep;
pub mod latency;
pub mod rate;
pub mod reading;
pub mod replicas;
mod scaling;
pub mod schedule;
mod trigger;

pub use decision::{Clamp, Decision, Terms, decide, is_active, whole_target, whole_value};
pub use keep::Keep;
pub use scaling::{Mode, Scaling};
pub use trigger::{POOL_KEY, Trigger, TriggerError, deprecated_keys, is_trigger_key, metric_name};
