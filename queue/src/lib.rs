//! Jobs, and the contracts of broker, ledger, roster and blob store.
//!
//! A broker has three roles, one per service: the gateway holds a [`Producer`], a worker a [`Consumer`] and the scaler
//! a [`Gauge`]. All three services use the [`Ledger`], which records the state of every job, and the [`Roster`], which
//! lists the live workers and their measurements. A [`Backend`] is a broker, a ledger and a roster; the crate
//! `millrace-backends` opens it from a URL.
//!
//! This crate has no driver. A call fails with an [`Error`]. It has an [`ErrorKind`], on which the caller decides, and
//! a source.

mod backend;
mod blob;
mod blob_ref;
pub mod broker;
mod clock;
pub mod driver;
mod ending;
mod error;
mod event;
mod job;
mod job_error;
pub mod ledger;
mod risk;
pub mod roster;
mod route;
mod store_id;
mod stored;
mod sweep;
mod upkeep;
mod url_source;

pub use backend::Backend;
pub use blob::{Blobs, FailureObserver, Role};
pub use blob_ref::BlobRef;
pub use broker::{Announcer, Broker, Consumer, Delivery, Depth, Gauge, Producer, Settlement};
pub use clock::Clock;
pub use ending::Ending;
pub use error::{Error, ErrorKind, Result};
pub use job::{Body, Class, Input, Job, JobId, Origin, Output, PoolName};
pub use job_error::{JobError, JobErrorKind, Retried};
pub use ledger::{
    Attempt, Claim, ClaimRequest, DEAD_RETENTION, DeadFilter, DeadPage, DeadPosition, DueJob, Finish, Finished,
    Forgotten, JobCounts, JobRecord, JobState, Lease, Ledger, Outcome, Publication, Purged, Requeued, Submitted,
};
pub use risk::{EndRate, PoolExpectation, Risk, Severity, Usage};
pub use roster::{Measured, Roster, WorkerId, WorkerRecord, WorkerState};
pub use route::{Route, RouteError, RouteErrors, Routes};
pub use store_id::StoreId;
pub use sweep::Sweep;
pub use upkeep::Upkeep;
pub use url_source::UrlSource;
