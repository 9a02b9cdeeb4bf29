//! A job in this worker's hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use queue::{Delivery, JobError, Lease, Output};

use crate::runtime::Item;

pub(crate) mod leases;
pub(crate) mod window;

/// A job that was received and claimed.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) delivery: Delivery,
    pub(crate) lease: Lease,
    /// When it was received; if the ledger had to be asked again for its claim, when it was last asked: waiting for a
    /// ledger that is away is no work.
    pub(crate) received: Instant,
    /// It must not share a batch: a former holder vanished with it.
    pub(crate) alone: bool,
    pub(crate) lost: Lost,
}

/// A job that waits for a device.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) held: Held,
    pub(crate) work: Work,
}

/// What a device is given of a job.
#[derive(Debug)]
pub(crate) enum Work {
    /// Prepared: its batch can run.
    Prepared(Item),
    /// The bytes of a suspect: preparing it may be what kills the worker, so that too is done alone.
    Raw(Bytes),
}

/// How a job leaves this worker.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) held: Held,
    pub(crate) how: How,
}

/// How a job leaves this worker.
#[derive(Debug)]
pub(crate) enum How {
    /// With a result.
    Succeeded(Output),
    /// The job is at fault.
    Failed(JobError),
    /// The attempt failed.
    Retry(JobError),
    /// Never started: to be given back.
    Released,
    /// Never started, and not ours any more: another has it, or it was cancelled.
    LeaseLost,
}

/// Set when the ledger says that a lease is gone. Shared with whoever renews it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lost(Arc<AtomicBool>);

impl Lost {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
