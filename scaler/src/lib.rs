//! Answers KEDA: the amount of work and the number of workers of a pool.
//!
//! ```text
//! gauge, ledger, roster → sampler → policy::history → policy::decide → server → KEDA → HPA
//!                                                        ↑
//!                                  policy::Trigger (a ScaledObject's metadata)
//! ```
//!
//! The sampler reads all pools at its own interval. A call uses the last reading only, so a broker that hangs cannot
//! make a call hang, and every replica gives the same answer. The arithmetic is in the crate `policy`, which holds no
//! clock, task or I/O.

mod explain;
mod failure;
mod listen;
pub mod metrics;
mod push;
mod readings;
mod sampler;
mod server;
mod settings;
mod tenancy;

pub use explain::{Entry, Explanation, Journal};
pub use sampler::Sources;
pub use server::{RunError, run};
pub use settings::{PoolScale, ScalerSettings};
pub use tenancy::Tenancy;
