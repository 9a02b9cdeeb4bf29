//! The commands that the thread of a group member receives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crossbeam_channel::Sender;
use tokio::sync::oneshot;

use queue::Result;
use queue::driver::{Delivery, DeliveryTag, RequeueOnDrop, Settlement};

pub(super) enum Command {
    /// Deliver up to `max` jobs.
    Receive { max: usize, reply: oneshot::Sender<Result<Vec<Delivery>>> },
    /// Settle these deliveries, and reply when that is committed.
    Settle { settled: Vec<(DeliveryTag, Settlement)>, reply: oneshot::Sender<Result<()>> },
    /// Requeue a delivery that was dropped.
    Requeue(DeliveryTag),
    /// librdkafka has records or events.
    Wake,
    /// Leave the group and end.
    Leave,
    /// End as if killed: commit nothing, and do not leave the group.
    #[cfg(test)]
    Kill,
    /// Cause this event for the member, and reply when it has happened.
    #[cfg(test)]
    Inject(InjectedEvent, oneshot::Sender<()>),
}

/// An event that a test causes for a member of a group.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(crate) enum InjectedEvent {
    /// The group removes it, as after its session has expired.
    RemovedFromGroup,
    /// Its membership ends, as after an error that requires it to join again.
    MembershipEnded,
    /// Its logs are read from their start again, as if the topics had been created again.
    LogsRestarted,
}

/// Wakes the member from librdkafka's threads. Further calls have no effect until it has woken.
#[derive(Clone)]
pub(super) struct Waker {
    commands: Sender<Command>,
    is_pending: Arc<AtomicBool>,
}

impl Waker {
    pub(super) fn new(commands: Sender<Command>) -> Self {
        Self { commands, is_pending: Arc::default() }
    }

    pub(super) fn wake(&self) {
        if !self.is_pending.swap(true, Ordering::AcqRel) {
            // A member that has ended need not wake.
            drop(self.commands.send(Command::Wake));
        }
    }

    /// The member has woken: the next call wakes it again.
    pub(super) fn has_woken(&self) {
        self.is_pending.store(false, Ordering::Release);
    }
}

/// Numbers the deliveries of a consumer, and requeues those that are dropped.
#[derive(Debug)]
pub(super) struct Requeuer {
    commands: Sender<Command>,
    last_number: AtomicI64,
}

impl Requeuer {
    pub(super) fn new(commands: Sender<Command>) -> Self {
        Self { commands, last_number: AtomicI64::new(0) }
    }

    /// A number for a delivery. Numbers are unique for the life of the consumer, even after it joins its group again.
    /// So a late settlement cannot settle another delivery.
    pub(super) fn next_number(&self) -> i64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl RequeueOnDrop for Requeuer {
    fn requeue(self: Arc<Self>, tag: DeliveryTag) {
        // A consumer that has ended has requeued all its deliveries.
        drop(self.commands.send(Command::Requeue(tag)));
    }
}
