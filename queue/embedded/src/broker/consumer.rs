//! The consumer: takes messages of one pool and settles them.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::session::ConsumerSession;
use super::{heartbeat, messages};
use crate::store::{Change, Durability, Store, Write};
use queue::driver::{Consumer, Delivery, RequeueOnDrop, Settlement};
use queue::{Error, ErrorKind, PoolName, Result};

pub(super) struct EmbeddedConsumer {
    pool: PoolName,
    session: Arc<ConsumerSession>,
    heartbeats: JoinHandle<()>,
}

impl EmbeddedConsumer {
    /// Registers a consumer, and starts its heartbeats.
    pub(super) async fn start(store: &Store, pool: &PoolName) -> Result<Self> {
        let id = store.write(Durability::Process, heartbeat::register).await?;
        let session = Arc::new(ConsumerSession::new(store, id));
        let heartbeats = tokio::spawn(heartbeat::send_heartbeats(Arc::clone(&session)));
        Ok(Self { pool: pool.clone(), session, heartbeats })
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.heartbeats.abort();
        let id = self.session.id;
        let leave = move |write: &mut Write<'_>| heartbeat::leave(write, id);
        self.session.store.write_later(Durability::Process, leave, |left| {
            if let Err(error) = left {
                tracing::warn!(%error, "a consumer could not leave; its heartbeat will expire");
            }
        });
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        let store = &self.session.store;
        let mut published = store.subscribe(Change::Published);
        loop {
            // Most of the time an idle consumer finds nothing, and a read needs no file lock.
            let pool = self.pool.clone();
            if store.read(move |file| messages::is_waiting(file, &pool)).await? {
                let (pool, session) = (self.pool.clone(), Arc::clone(&self.session));
                let take = move |write: &mut Write<'_>| take(write, &pool, &session, max);
                let taken = store.write(Durability::Process, take).await?;
                if !taken.is_empty() {
                    return Ok(taken);
                }
            }
            published.changed().await;
        }
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        let settled = deliveries.into_iter().map(|(delivery, settlement)| (delivery.into_tag(), settlement)).collect();
        let (reply, answer) = oneshot::channel();
        self.session.settle(settled, move |result| drop(reply.send(result)));
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, "cannot settle: the data file is closed"))?
    }
}

/// Takes messages within a write. If the caller has dropped its future, the answer and its deliveries are dropped. This
/// requeues the deliveries.
fn take(write: &mut Write<'_>, pool: &PoolName, session: &Arc<ConsumerSession>, max: usize) -> Result<Vec<Delivery>> {
    let taken = messages::take(write, pool, session.id, max)?;
    let delivery = |message: messages::TakenMessage| {
        let requeue_on_drop = Arc::clone(session) as Arc<dyn RequeueOnDrop>;
        Delivery::new(message.job, message.redelivered, message.tag, requeue_on_drop)
    };
    Ok(taken.into_iter().map(delivery).collect())
}
