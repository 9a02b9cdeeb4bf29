//! The bytes of all bodies in memory, and their bound.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::problem::{Problem, ProblemKind};

/// The unit of the bound. So the bound fits the counter of a semaphore.
const UNIT_BYTES: usize = 1024;

/// The bodies in memory may have the size of this number of largest bodies, or [`LEAST_BYTES`] if that is more.
const LARGEST_BODIES: usize = 8;
const LEAST_BYTES: usize = 128 * 1024 * 1024;

/// How long a request waits for room.
const WAITING: Duration = Duration::from_secs(2);

/// The room for bodies that no request uses.
pub(crate) struct BodyBudget(Arc<Semaphore>);

/// Room for one body, until it is dropped.
pub(crate) struct Reserved {
    budget: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// A budget for bodies of at most `max_body_bytes` each.
    pub(crate) fn new(max_body_bytes: usize) -> Self {
        let bytes = max_body_bytes.saturating_mul(LARGEST_BODIES).max(LEAST_BYTES);
        Self(Arc::new(Semaphore::new((bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS))))
    }

    /// Room for no byte yet.
    pub(crate) fn start(&self) -> Reserved {
        Reserved { budget: Arc::clone(&self.0), permit: None }
    }

    /// The room that no request uses.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.0.available_permits() * UNIT_BYTES
    }
}

impl Reserved {
    /// Waits until there is room for `bytes` in all.
    pub(crate) async fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        let present = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(present);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let acquiring = Arc::clone(&self.budget).acquire_many_owned(missing);
        let Ok(Ok(more)) = tokio::time::timeout(WAITING, acquiring).await else {
            let detail = "body: the gateway holds as many bytes of other requests as it may; send it again later";
            return Err(Problem::new(ProblemKind::Busy, detail).field("body"));
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// The room, without the means to get more.
    pub(crate) fn into_permit(self) -> Option<OwnedSemaphorePermit> {
        self.permit
    }

    /// Returns the room for more than `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            let unused = permit.num_permits().saturating_sub(bytes.div_ceil(UNIT_BYTES));
            drop(permit.split(unused));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_body_without_room_waits_until_another_one_ends() {
        let budget = BodyBudget::new(1);
        let mut first = budget.start();
        first.grow_to(LEAST_BYTES - UNIT_BYTES).await.unwrap();
        let mut second = budget.start();
        second.grow_to(UNIT_BYTES).await.unwrap();
        assert!(second.grow_to(2 * UNIT_BYTES).now_or_never().is_none());
        drop(first);
        second.grow_to(2 * UNIT_BYTES).await.unwrap();
    }
}
