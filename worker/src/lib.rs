//! Take jobs, batch them, run the model, settle.
//!
//! A job's way through this crate: `intake` receives and claims it and has it prepared on CPU threads; the `batcher`
//! keeps it until a device is free and forms the batch then; a `device` thread, which owns a model instance, runs it;
//! the `outbox` writes the result to the ledger and only then settles the delivery. `leases` renews the claims
//! meanwhile, `presence` tells the roster, and `curve` what this worker could do in full batches.

mod batch;
mod device;
mod finish;
mod job;
mod report;
mod run;
pub mod runtime;
mod settings;
mod take;

pub use run::{Worker, WorkerError, run};
pub use settings::WorkerSettings;
