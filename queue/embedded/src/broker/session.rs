//! The part of a consumer that its deliveries share.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::messages;
use crate::store::{Durability, Store, Write};
use queue::Result;
use queue::driver::{DeliveryTag, RequeueOnDrop, Settlement};

pub(super) struct ConsumerSession {
    pub(super) store: Store,
    /// The consumer's number in the table `consumers`.
    pub(super) id: i64,
    /// Settlements that failed, for example because the disk was full. The next heartbeat repeats them. Otherwise the
    /// consumer would hold their deliveries until it ends.
    failed_settlements: Mutex<Vec<(DeliveryTag, Settlement)>>,
}

impl ConsumerSession {
    pub(super) fn new(store: &Store, id: i64) -> Self {
        Self { store: store.clone(), id, failed_settlements: Mutex::default() }
    }

    /// Settles deliveries in the background. The writer's thread calls `answered`.
    pub(super) fn settle(
        self: &Arc<Self>,
        settled: Vec<(DeliveryTag, Settlement)>,
        answered: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let (session, id, copy) = (Arc::clone(self), self.id, settled.clone());
        let work = move |write: &mut Write<'_>| messages::settle(write, id, &settled);
        self.store.write_later(Durability::Process, work, move |result| {
            if let Err(error) = &result {
                tracing::warn!(%error, "cannot settle deliveries; the next heartbeat tries again");
                session.failed_settlements.lock().extend(copy);
            }
            answered(result);
        });
    }

    /// Repeats the settlements that failed.
    pub(super) fn settle_failed(self: &Arc<Self>) {
        let failed = std::mem::take(&mut *self.failed_settlements.lock());
        if !failed.is_empty() {
            self.settle(failed, |_| ());
        }
    }
}

impl RequeueOnDrop for ConsumerSession {
    fn requeue(self: Arc<Self>, tag: DeliveryTag) {
        self.settle(vec![(tag, Settlement::Requeue)], |_| ());
    }
}

impl fmt::Debug for ConsumerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerSession").field("consumer", &self.id).finish_non_exhaustive()
    }
}
