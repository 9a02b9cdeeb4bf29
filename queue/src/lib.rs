//! Jobs and where they wait.
//!
//! Three roles, because the three services hold three different things: the gateway a [`Producer`], a worker a
//! [`Consumer`], the scaler a [`Gauge`]; all of them the [`Ledger`], which knows what became of every job, and the
//! [`Roster`], which knows the workers alive and what they measured. A [`Backend`] opens them from one URL.
//!
//! No type of a driver leaves this crate: errors are an [`Error`] with a [`ErrorKind`] that a caller can decide on.

mod backend;
mod blob;
pub mod broker;
mod clock;
pub mod driver;
mod error;
mod event;
mod job;
mod job_error;
pub mod ledger;
mod risk;
pub mod roster;
mod route;
mod stored;
mod upkeep;

pub use backend::Backend;
pub use blob::{BlobRef, Blobs, Role};
pub use broker::{Announcer, Broker, Consumer, Delivery, Depth, Ending, Gauge, Producer, Settlement};
pub use clock::Clock;
pub use error::{Error, ErrorKind, Result};
pub use job::{Body, Class, Input, Job, JobId, Origin, Output, PoolName};
pub use job_error::{JobError, JobErrorKind, Retried};
pub use ledger::{
    Attempt, Claim, ClaimRequest, DeadFilter, DeadPage, DeadPosition, DueJob, Finish, Finished, Forgotten, JobCounts,
    JobRecord, JobState, Lease, Ledger, Outcome, Publication, Purged, Requeued, Submitted,
};
pub use risk::{PoolExpectation, Risk, Severity};
pub use roster::{Measured, Roster, WorkerId, WorkerRecord, WorkerState};
pub use route::{Route, RouteError, RouteErrors, Routes};
pub use upkeep::Upkeep;
