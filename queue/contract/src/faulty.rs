//! A backend with faults on demand: lost answers, failed calls and slow calls.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use queue::{Backend, Error, ErrorKind, JobId, Result};

mod broker;
mod ledger;
/// The fault of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call has no effect and fails with [`ErrorKind::Unavailable`].
    Fail,
    /// The call has its effect, but fails with [`ErrorKind::Unavailable`].
    LoseAnswer,
    /// The call has no effect and fails with [`ErrorKind::Ended`].
    End,
    /// The call is made after this time.
    Delay(Duration),
}

/// A call that can have a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each has the name of its call")]
pub enum Call {
    Publish,
    Announce,
    Receive,
    Settle,
    Depths,
    Submit,
    Published,
    Claim,
    Begin,
    Renew,
    Finish,
    Cancel,
    Get,
    Watch,
    Due,
    Counts,
    Arrivals,
    HoldUpkeep,
    Purge,
    Input,
    Dead,
    Requeue,
    Forget,
    PurgeDead,
    Id,
    BlobStore,
    Risks,
    Usage,
}

/// The faults planned for a backend. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faulty {
    ordered: Arc<Mutex<HashMap<Call, VecDeque<Fault>>>>,
    bad_jobs: Arc<Mutex<Vec<BadJob>>>,
}

/// A job that makes each batch with it fail.
#[derive(Debug)]
struct BadJob {
    call: Call,
    id: JobId,
    kind: ErrorKind,
    times: usize,
}

impl Faulty {
    /// Wraps the broker and the ledger of `backend`. Without planned faults every call works normally.
    pub fn wrap(&self, backend: Backend) -> Backend {
        Backend {
            broker: Arc::new(broker::FaultyBroker { broker: backend.broker, faulty: self.clone() }),
            ledger: Arc::new(ledger::FaultyLedger { ledger: backend.ledger, faulty: self.clone() }),
            roster: backend.roster,
        }
    }

    /// Plans `fault` for the next `times` of `call`, after the faults planned for it before.
    pub fn order(&self, call: Call, fault: Fault, times: usize) {
        self.lock().entry(call).or_default().extend(std::iter::repeat_n(fault, times));
    }

    /// Plans that the next `times` of `call` with the job `id` in the batch have no effect and fail with `kind`.
    pub fn order_for_job(&self, call: Call, id: &JobId, kind: ErrorKind, times: usize) {
        self.bad_jobs.lock().push(BadJob { call, id: id.clone(), kind, times });
    }

    /// The number of planned failures of `call` because of jobs that have not happened yet.
    pub fn left_for_jobs(&self, call: Call) -> usize {
        self.bad_jobs.lock().iter().filter(|bad| bad.call == call).map(|bad| bad.times).sum()
    }

    fn check<'a>(&self, call: Call, mut ids: impl Iterator<Item = &'a JobId>) -> Result<()> {
        let mut bad_jobs = self.bad_jobs.lock();
        let of_call: Vec<_> = bad_jobs.iter_mut().filter(|bad| bad.call == call && bad.times > 0).collect();
        if of_call.is_empty() {
            return Ok(());
        }
        let found = ids.find_map(|id| of_call.iter().position(|bad| bad.id == *id));
        let Some(bad) = found.and_then(|index| of_call.into_iter().nth(index)) else { return Ok(()) };
        bad.times -= 1;
        Err(Error::new(bad.kind, format_args!("{call:?}: the value of job {} is bad (as planned)", bad.id)))
    }

    /// The number of planned faults of `call` that have not happened yet.
    pub fn left(&self, call: Call) -> usize {
        self.lock().get(&call).map_or(0, VecDeque::len)
    }

    async fn call<T>(&self, call: Call, done: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let fault = self.lock().get_mut(&call).and_then(VecDeque::pop_front);
        let unavailable = |what| Err(Error::new(ErrorKind::Unavailable, format_args!("{call:?}: {what} (as planned)")));
        match fault {
            None => done.await,
            Some(Fault::Fail) => unavailable("not done"),
            Some(Fault::End) => Err(Error::new(ErrorKind::Ended, format_args!("{call:?}: has ended (as planned)"))),
            Some(Fault::LoseAnswer) => {
                done.await?;
                unavailable("the answer was lost")
            }
            Some(Fault::Delay(by)) => {
                tokio::time::sleep(by).await;
                done.await
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Call, VecDeque<Fault>>> {
        self.ordered.lock()
    }
}
