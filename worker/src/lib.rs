//! Takes jobs, batches them, runs the model, and writes the results.
//!
//! The path of a job through this crate:
//! 1. `take` receives the job, claims it in the ledger, and prepares its input on CPU threads.
//! 2. `batch` holds it until a device is free, and forms a batch at that moment.
//! 3. `device` runs the batch. Each device thread owns an instance of the model, which [`runtime`] provides.
//! 4. `finish` writes the result to the ledger, and only then settles the delivery.
//!
//! `job` is the job on this path: its lease, which is renewed meanwhile, and its place in the window. `report` sends
//! heartbeats and batch times to the roster. `run` puts all of this together.

mod batch;
mod device;
mod finish;
mod job;
mod report;
mod run;
pub mod runtime;
mod settings;
mod take;
mod watchdog;

pub use run::{Worker, WorkerError, run};
pub use settings::WorkerSettings;
