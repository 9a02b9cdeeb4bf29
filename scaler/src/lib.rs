//! Answers KEDA: how much work, how many workers.
//!
//! ```text
//! gauge, ledger, roster → sampler → reading → policy → server → KEDA → HPA
//!                                                          └──→ replicas (KEDA's and the HPA's arithmetic, here)
//! ```
//!
//! A task per pool samples at its own rhythm; a call only looks at the last reading, so that any replica may be asked
//! at any rhythm, and a broker that hangs cannot make a call hang. [`policy`] and [`replicas`] are pure: they hold no
//! clock, task or I/O.

pub mod metrics;
pub mod policy;
mod push;
mod reading;
pub mod replicas;
mod sampler;
mod server;
mod settings;
pub mod simulation;
mod trigger;

pub use reading::Reading;
pub use server::{RunError, Sources, run};
pub use settings::{PoolScale, ScalerSettings};
pub use trigger::{ACTIVATION_KEY, POOL_KEY, TARGET_KEY, metric_name};
