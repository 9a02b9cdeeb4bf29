//! Where prepared jobs wait for a device, shared by the threads that fill and empty it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use model::Datatype;

use crate::batch::buckets::Buckets;
use crate::job::{Ready, Work};

mod buckets;

/// What the tensors of items in one batch have in common.
type Shape = Vec<(Datatype, Vec<i64>)>;

/// Prepared jobs, until a device takes them.
pub(crate) struct Batcher {
    state: Mutex<State>,
    filled: Condvar,
}

struct State {
    buckets: Buckets<Shape, Ready>,
    is_closed: bool,
}

impl Batcher {
    pub(crate) fn new() -> Self {
        let state = State { buckets: Buckets::new(), is_closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Adds a job; gives it back if nothing is run any more.
    pub(crate) fn push(&self, ready: Ready) -> Result<(), Box<Ready>> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Box::new(ready));
        }
        let shape = match &ready.work {
            Work::Prepared(item) => {
                Some(item.tensors.iter().map(|tensor| (tensor.datatype, tensor.shape.clone())).collect())
            }
            Work::Raw(_) => None,
        };
        let job = &ready.held.delivery.job;
        let (class, deadline_at) = (job.class, job.deadline_at);
        state.buckets.push(shape, class, deadline_at, ready);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for work and forms a batch of it, now. `None`: closed.
    pub(crate) fn next(&self, max_items: usize) -> Option<Vec<Ready>> {
        let mut state = self.lock();
        while state.buckets.is_empty() && !state.is_closed {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.is_closed).then(|| state.buckets.take(max_items))
    }

    /// From here on nothing is taken in or given out; what was waiting.
    pub(crate) fn close(&self) -> Vec<Ready> {
        let mut state = self.lock();
        state.is_closed = true;
        self.filled.notify_all();
        state.buckets.take_all()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
