//! Ready jobs wait here for a device. The threads that prepare jobs fill it, and the device threads empty it.

use model::Datatype;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::job::{ClaimedJob, Disposition, ReadyInput, ReadyJob};

mod buckets;

use buckets::Buckets;

/// The datatypes and shapes of an item's tensors. All items of a batch have the same.
type ItemShape = Vec<(Datatype, Vec<i64>)>;

/// Ready jobs, until a device takes them.
pub(crate) struct Batcher {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    buckets: Buckets<ItemShape, ReadyJob>,
    is_closed: bool,
}

impl Batcher {
    pub(crate) fn new() -> Self {
        let waiting = Waiting { buckets: Buckets::new(), is_closed: false };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    /// Adds jobs that are ready at the same time, so that they can share a batch. Returns them if the batcher is closed.
    pub(crate) fn push(&self, ready: Vec<ReadyJob>) -> Vec<ReadyJob> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return ready;
        }
        for ready in ready {
            let shape = match &ready.input {
                ReadyInput::Prepared(item) => {
                    Some(item.tensors.iter().map(|tensor| (tensor.datatype, tensor.shape.clone())).collect())
                }
                ReadyInput::Unread => None,
            };
            let job = &ready.job.delivery.job;
            let (class, deadline_at) = (job.class, job.deadline_at);
            waiting.buckets.push(shape, class, deadline_at, ready);
            self.changed.notify_one();
        }
        Vec::new()
    }

    /// Waits for jobs and forms a batch of them. `None`: the batcher is closed.
    pub(crate) fn next(&self, max_items: usize) -> Option<Vec<ReadyJob>> {
        let mut waiting = self.lock();
        while waiting.buckets.is_empty() && !waiting.is_closed {
            self.changed.wait(&mut waiting);
        }
        (!waiting.is_closed).then(|| waiting.buckets.take(max_items))
    }

    /// Takes the jobs that must not start any more, each with its end.
    pub(crate) fn take_ended(&self) -> Vec<(ClaimedJob, Disposition)> {
        let ended = self.lock().buckets.take_if(|ready| ready.job.ended_before_start().is_some());
        let with_end = |ready: ReadyJob| {
            let end = ready.job.ended_before_start().unwrap_or(Disposition::Released);
            (ready.job, end)
        };
        ended.into_iter().map(with_end).collect()
    }

    /// Closes the batcher: it accepts and returns no more jobs. Returns the jobs that waited.
    pub(crate) fn close(&self) -> Vec<ReadyJob> {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        self.changed.notify_all();
        waiting.buckets.take_all()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that can panic runs under the lock.
        self.waiting.lock()
    }
}
