//! Who waits for which job to end: one subscription per process for all of them, whatever their number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::redis::{Redis, backoff};
use crate::{Error, ErrorKind, JobId, Result};

/// How long a watch waits for the subscription to stand before it fails.
const STANDING_TIMEOUT: Duration = Duration::from_secs(10);

/// After so long without a message the subscription is tried out with one of our own; after as long again it is given
/// up. A connection may be dead without either end having been told.
const QUIET: Duration = Duration::from_secs(10);

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
    /// Whether the subscription stands; if not, why.
    standing: watch::Sender<Result<(), String>>,
}

/// One waiter.
pub(super) struct Ending {
    id: JobId,
    heard: oneshot::Receiver<()>,
    following: Arc<Following>,
}

impl Endings {
    pub(super) fn new(redis: Redis) -> Self {
        let standing = watch::Sender::new(Err("it has not been tried yet".to_owned()));
        let waiters = Arc::new(Waiters { by_id: Mutex::default(), standing });
        Self { following: Arc::new(Following { redis, waiters, task: OnceLock::new() }) }
    }

    /// Waits for job `id`, from when this returns. The first call subscribes: most processes never watch.
    pub(super) async fn of(&self, id: &JobId) -> Result<Ending> {
        let Following { redis, waiters, task } = &*self.following;
        task.get_or_init(|| tokio::spawn(follow(redis.clone(), Arc::clone(waiters))));
        let (sender, heard) = oneshot::channel();
        // Registered before the look at the subscription: if it is lost from here on, `heard` tells.
        waiters.lock().entry(id.to_string()).or_default().push(sender);
        let ending = Ending { id: id.clone(), heard, following: Arc::clone(&self.following) };
        let mut standing = waiters.standing.subscribe();
        if timeout(STANDING_TIMEOUT, standing.wait_for(Result::is_ok)).await.is_ok() {
            return Ok(ending);
        }
        let why = standing.borrow().clone().err().unwrap_or_default();
        Err(Error::new(ErrorKind::Unavailable, format_args!("cannot subscribe to the endings of jobs: {why}")))
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

    /// Ids separated by spaces; none at all where a process tries out its subscription.
    fn tell(&self, ids: &[u8]) {
        let ids = String::from_utf8_lossy(ids);
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

async fn follow(redis: Redis, waiters: Arc<Waiters>) {
    let channel = redis.key("ended");
    let mut command = redis::cmd("PUBLISH");
    command.arg(&channel).arg("");
    let try_out = || redis.run::<()>("try out the subscription", &command);
    let mut failures = 0;
    loop {
        let why = match redis.subscribe(&channel).await {
            Ok(messages) => {
                failures = 0;
                drop(waiters.standing.send_replace(Ok(())));
                hear(messages, &waiters, QUIET, try_out).await
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(error = why, "the subscription to the endings of jobs is lost; subscribing again");
        // In this order: who registers after the second step has seen the first, and waits for the next subscription.
        drop(waiters.standing.send_replace(Err(why)));
        waiters.tell_all();
        failures += 1;
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// Hears endings until the subscription is lost; why it is.
async fn hear<F: Future<Output = Result<()>>>(
    mut messages: impl Stream<Item = Vec<u8>> + Unpin,
    waiters: &Waiters,
    quiet: Duration,
    try_out: impl Fn() -> F,
) -> String {
    let mut is_tried = false;
    loop {
        match timeout(quiet, messages.next()).await {
            Ok(Some(ids)) => {
                is_tried = false;
                waiters.tell(&ids);
            }
            Ok(None) => return "the connection is lost".to_owned(),
            Err(_) if is_tried => return format!("nothing was heard for {quiet:?}, not even this process itself"),
            Err(_) => {
                is_tried = true;
                if let Err(error) = try_out().await {
                    return error.to_string();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{future, stream};

    use super::super::RedisLedger;
    use super::*;
    use crate::contract::{Fixture, RedisFixture, job, soon};
    use crate::{Ledger, State};

    #[tokio::test]
    async fn a_watch_goes_on_over_a_lost_connection() {
        let fixture = RedisFixture::start();
        let watching = fixture.open().await;
        let other = RedisLedger::new(fixture.redis());
        for round in 0..10 {
            let job = job(&fixture, &format!("job-{round}"));
            other.submit(std::slice::from_ref(&job)).await.unwrap();
            let mut watch = watching.ledger.watch(&job.id).await.unwrap();
            assert_eq!(watch.next().await.unwrap().unwrap().state, State::Queued);
            fixture.cut_lines();
            other.cancel(&job.id).await.unwrap();
            let last = soon(watch.map(|record| record.unwrap()).collect::<Vec<_>>()).await.pop().unwrap();
            assert_eq!(last.state, State::Cancelled);
        }
    }

    #[tokio::test]
    async fn a_watch_fails_when_there_is_no_server() {
        let url = "redis://127.0.0.1:1".parse().unwrap();
        let ledger = RedisLedger::new(Redis::open(&url, crate::Clock::default()).unwrap());
        let error = soon(ledger.watch(&"job".parse().unwrap())).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    fn waiters() -> Waiters {
        Waiters { by_id: Mutex::default(), standing: watch::Sender::new(Ok(())) }
    }

    const A_MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_silent_subscription_is_tried_out_once_and_then_given_up() {
        let tries = AtomicUsize::new(0);
        let try_out = || {
            tries.fetch_add(1, Ordering::SeqCst);
            future::ready(Ok(()))
        };
        soon(hear(stream::pending(), &waiters(), A_MOMENT, try_out)).await;
        assert_eq!(tries.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_subscription_that_hears_itself_is_kept() {
        let (published, heard) = futures::channel::mpsc::unbounded();
        let tries = AtomicUsize::new(0);
        let try_out = || {
            match tries.fetch_add(1, Ordering::SeqCst) {
                0..10 => published.unbounded_send(Vec::new()).unwrap(),
                _ => published.close_channel(),
            }
            future::ready(Ok(()))
        };
        assert_eq!(soon(hear(heard, &waiters(), A_MOMENT, try_out)).await, "the connection is lost");
        assert_eq!(tries.load(Ordering::SeqCst), 11);
    }
}
