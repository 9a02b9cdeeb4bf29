//! Answers KEDA: how much work, how many workers.
//!
//! ```text
//! gauge, ledger, roster → sampler → history → policy → server → KEDA → HPA
//!                                        ↑        └──→ replicas (KEDA's and the HPA's arithmetic, here)
//!                        trigger (a ScaledObject's metadata)
//! ```
//!
//! The sampler reads all pools at its own rhythm; a call only looks at what has been read, so that any replica may be asked
//! at any rhythm, and a broker that hangs cannot make a call hang. [`history`], [`policy`], [`replicas`] and [`simulation`]
//! are pure: they hold no clock, task or I/O.

mod explain;
pub mod history;
mod listen;
pub mod metrics;
pub mod policy;
mod push;
mod reading;
pub mod replicas;
mod sampler;
mod server;
mod settings;
pub mod simulation;
mod tenancy;
mod tls;
mod trigger;

pub use explain::{Entry, Explanation, Journal};
pub use reading::{Batch, Fleet, Measured, Reading};
pub use sampler::Sources;
pub use server::{RunError, run};
pub use settings::{PoolScale, ScalerSettings};
pub use tenancy::Tenancy;
pub use tls::TlsSettings;
pub use trigger::{POOL_KEY, TriggerError, metric_name};
