//! A job as a client submits it, independent of the protocol.

use std::time::Duration;

use bytes::Bytes;
use queue::{Class, JobId, PoolName};
use tokio::sync::OwnedSemaphorePermit;

/// A job as a client submits it.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) pool: PoolName,
    pub(crate) options: JobOptions,
    /// The media type of the input with its parameters, as the client sent it.
    pub(crate) media_type: String,
    /// The input.
    pub(crate) bytes: Bytes,
    /// The valid W3C `traceparent` of the request.
    pub(crate) trace_parent: Option<String>,
    /// The room for the input in memory. It is free again when the submission has its answer.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// The options that a client may set for a job.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct JobOptions {
    /// `None`: the intake generates an id.
    pub(crate) id: Option<JobId>,
    pub(crate) class: Option<Class>,
    /// The time from now within which the job must start. `None`: the pool's deadline.
    pub(crate) deadline: Option<Duration>,
}
