//! Notices for the watchers of jobs: one subscription per process serves all of them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::channel::{self, ChannelEvent, SubscriptionState};
use crate::connection::Redis;
use queue::{JobId, Result};

/// The channel to which the scripts publish the ids of jobs that ended.
const CHANNEL: &str = "ended";

/// Notifies the watchers of this process when their jobs have ended.
#[derive(Clone)]
pub(super) struct EndedNotices {
    following: Arc<Following>,
}

struct Following {
    redis: Redis,
    watchers: Arc<Watchers>,
    task: OnceLock<JoinHandle<()>>,
}

struct Watchers {
    by_id: Mutex<HashMap<String, Vec<oneshot::Sender<()>>>>,
    subscription: SubscriptionState,
}

/// A future notice that one job has ended.
pub(super) struct EndedNotice {
    id: JobId,
    received: oneshot::Receiver<()>,
    following: Arc<Following>,
}

impl EndedNotices {
    pub(super) fn new(redis: Redis) -> Self {
        let watchers = Arc::new(Watchers { by_id: Mutex::default(), subscription: SubscriptionState::new() });
        Self { following: Arc::new(Following { redis, watchers, task: OnceLock::new() }) }
    }

    /// The notice of job `id`, if it ends after this returns. The first call subscribes to the channel, because most
    /// processes never watch a job.
    pub(super) async fn of(&self, id: &JobId) -> Result<EndedNotice> {
        let Following { redis, watchers, task } = &*self.following;
        task.get_or_init(|| {
            let watchers = Arc::clone(watchers);
            tokio::spawn(channel::follow(redis.clone(), CHANNEL, move |event| watchers.handle(event)))
        });
        let (sender, received) = oneshot::channel();
        // The watcher is registered before the subscription is checked. If the subscription is lost later, `received`
        // reports that.
        watchers.by_id.lock().entry(id.to_string()).or_default().push(sender);
        let notice = EndedNotice { id: id.clone(), received, following: Arc::clone(&self.following) };
        watchers.subscription.wait(CHANNEL).await?;
        Ok(notice)
    }
}

impl EndedNotice {
    /// Returns when the job has ended, or when the subscription was lost and the job may have ended.
    pub(super) async fn wait(&mut self) {
        // An error means that the sender was dropped because the subscription is lost. The caller reads the record anyway.
        drop((&mut self.received).await);
    }
}

impl Drop for EndedNotice {
    fn drop(&mut self) {
        self.received.close();
        let mut by_id = self.following.watchers.by_id.lock();
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

impl Watchers {
    fn handle(&self, event: ChannelEvent<'_>) {
        match event {
            ChannelEvent::Subscribed => drop(self.subscription.set(Ok(()))),
            ChannelEvent::Names(ids) => self.notify(ids),
            ChannelEvent::Lost(reason) => {
                // The order matters: a watcher that registers after the second step sees the effect of the first step,
                // and waits for the next subscription.
                self.subscription.set(Err(reason.to_owned()));
                self.notify_all();
            }
        }
    }

    fn notify(&self, ids: &str) {
        let mut by_id = self.by_id.lock();
        for sender in ids.split_whitespace().filter_map(|id| by_id.remove(id)).flatten() {
            // A watcher that was dropped needs no notice.
            let _ = sender.send(());
        }
    }

    /// Wakes every watcher, so that each reads the record of its job.
    fn notify_all(&self) {
        self.by_id.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::super::RedisLedger;
    use super::*;
    use crate::fixture::RedisFixture;
    use queue::{DEAD_RETENTION, ErrorKind, JobState, Ledger};
    use queue_contract::{Fixture, job, soon};

    #[tokio::test]
    async fn a_watch_continues_after_a_lost_connection() {
        let fixture = RedisFixture::start();
        let watching = fixture.open().await;
        let other = RedisLedger::new(fixture.redis(), DEAD_RETENTION);
        for round in 0..10 {
            let job = job(&fixture, &format!("job-{round}"));
            other.submit(std::slice::from_ref(&job)).await.unwrap();
            let mut watch = watching.ledger.watch(&job.id).await.unwrap();
            assert_eq!(watch.next().await.unwrap().unwrap().state, JobState::Queued);
            fixture.cut_connections();
            other.cancel(&job.id).await.unwrap();
            let last = soon(watch.map(|record| record.unwrap()).collect::<Vec<_>>()).await.pop().unwrap();
            assert_eq!(last.state, JobState::Cancelled);
        }
    }

    #[tokio::test]
    async fn a_watch_fails_when_there_is_no_server() {
        let url = "redis://127.0.0.1:1".parse().unwrap();
        let ledger = RedisLedger::new(Redis::open(&url, queue::Clock::default()).unwrap(), DEAD_RETENTION);
        let error = soon(ledger.watch(&"job".parse().unwrap())).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
