//! Who waits for which job to end: one subscription per process for all of them, whatever their number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::channel::{self, Heard, Standing};
use crate::connection::Redis;
use queue::{JobId, Result};

/// Where it is told.
const CHANNEL: &str = "ended";

/// The waiters of this process.
#[derive(Clone)]
pub(super) struct Endings {
    following: Arc<Following>,
}

struct Following {
    redis: Redis,
    waiters: Arc<Waiters>,
    task: OnceLock<JoinHandle<()>>,
}

struct Waiters {
    by_id: Mutex<HashMap<String, Vec<oneshot::Sender<()>>>>,
    standing: Standing,
}

/// One waiter.
pub(super) struct Ending {
    id: JobId,
    heard: oneshot::Receiver<()>,
    following: Arc<Following>,
}

impl Endings {
    pub(super) fn new(redis: Redis) -> Self {
        let waiters = Arc::new(Waiters { by_id: Mutex::default(), standing: Standing::not_yet() });
        Self { following: Arc::new(Following { redis, waiters, task: OnceLock::new() }) }
    }

    /// Waits for job `id`, from when this returns. The first call subscribes: most processes never watch.
    pub(super) async fn of(&self, id: &JobId) -> Result<Ending> {
        let Following { redis, waiters, task } = &*self.following;
        task.get_or_init(|| {
            let waiters = Arc::clone(waiters);
            tokio::spawn(channel::follow(redis.clone(), CHANNEL, move |heard| waiters.hear(heard)))
        });
        let (sender, heard) = oneshot::channel();
        // Registered before the look at the subscription: if it is lost from here on, `heard` tells.
        waiters.lock().entry(id.to_string()).or_default().push(sender);
        let ending = Ending { id: id.clone(), heard, following: Arc::clone(&self.following) };
        waiters.standing.wait(CHANNEL).await?;
        Ok(ending)
    }
}

impl Ending {
    /// Returns when the job has ended, or may have while the subscription was lost.
    pub(super) async fn wait(&mut self) {
        // An error means that the sender was dropped: the subscription is lost, and the caller looks for itself.
        drop((&mut self.heard).await);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.heard.close();
        let mut by_id = self.following.waiters.lock();
        if let Some(senders) = by_id.get_mut(self.id.as_str()) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                by_id.remove(self.id.as_str());
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<oneshot::Sender<()>>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, heard: Heard<'_>) {
        match heard {
            Heard::Standing => drop(self.standing.set(Ok(()))),
            Heard::Names(ids) => self.tell(ids),
            Heard::Lost(why) => {
                // In this order: who registers after the second step has seen the first, and waits for the next
                // subscription.
                self.standing.set(Err(why.to_owned()));
                self.tell_all();
            }
        }
    }

    fn tell(&self, ids: &str) {
        let mut by_id = self.lock();
        for sender in ids.split_whitespace().filter_map(|id| by_id.remove(id)).flatten() {
            // Nobody listens any more: no one needs to know.
            let _ = sender.send(());
        }
    }

    /// Makes every waiter look for itself.
    fn tell_all(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::super::RedisLedger;
    use super::*;
    use crate::fixture::RedisFixture;
    use queue::{ErrorKind, JobState, Ledger};
    use queue_contract::{Fixture, job, soon};

    #[tokio::test]
    async fn a_watch_goes_on_over_a_lost_connection() {
        let fixture = RedisFixture::start();
        let watching = fixture.open().await;
        let other = RedisLedger::new(fixture.redis());
        for round in 0..10 {
            let job = job(&fixture, &format!("job-{round}"));
            other.submit(std::slice::from_ref(&job)).await.unwrap();
            let mut watch = watching.ledger.watch(&job.id).await.unwrap();
            assert_eq!(watch.next().await.unwrap().unwrap().state, JobState::Queued);
            fixture.cut_lines();
            other.cancel(&job.id).await.unwrap();
            let last = soon(watch.map(|record| record.unwrap()).collect::<Vec<_>>()).await.pop().unwrap();
            assert_eq!(last.state, JobState::Cancelled);
        }
    }

    #[tokio::test]
    async fn a_watch_fails_when_there_is_no_server() {
        let url = "redis://127.0.0.1:1".parse().unwrap();
        let ledger = RedisLedger::new(Redis::open(&url, queue::Clock::default()).unwrap());
        let error = soon(ledger.watch(&"job".parse().unwrap())).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
