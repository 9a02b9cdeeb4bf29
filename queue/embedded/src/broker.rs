//! The broker in the data file.
//!
//! A consumer marks the messages that it takes as its own, and sends heartbeats. When its heartbeat expires, another
//! consumer of the file requeues its messages. Only a consumer whose own heartbeats were on time does this.

mod consumer;
mod gauge;
mod heartbeat;
pub(crate) mod messages;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

use self::consumer::EmbeddedConsumer;
use self::gauge::EmbeddedGauge;
use crate::store::{Durability, Store};
use queue::driver::{Announcer, Broker, Consumer, Gauge, Producer};
use queue::{Job, PoolExpectation, PoolName, Result, Risk, StoreId};

pub(crate) struct EmbeddedBroker {
    store: Store,
}

impl EmbeddedBroker {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(EmbeddedProducer { store: self.store.clone() }))
    }

    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(EmbeddedConsumer::start(&self.store, pool).await?))
    }

    async fn gauge(&self) -> Result<Arc<dyn Gauge>> {
        Ok(Arc::new(EmbeddedGauge::new(&self.store)))
    }

    async fn announcer(&self, _pool: &PoolName) -> Result<Option<Arc<dyn Announcer>>> {
        Ok(None)
    }

    async fn risks(&self, _pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
        self.store.risks().await
    }
}

struct EmbeddedProducer {
    store: Store,
}

#[async_trait]
impl Producer for EmbeddedProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        let jobs = jobs.to_vec();
        self.store.write(Durability::Power, move |write| messages::insert(write, &jobs)).await
    }

    fn store(&self) -> Option<StoreId> {
        Some(self.store.id())
    }
}

/// Treats every consumer as if its heartbeat had expired.
#[cfg(any(test, feature = "fixture"))]
pub(crate) fn expire_consumers(write: &mut crate::store::Write<'_>) -> Result<()> {
    messages::requeue_of_all(write).map(drop)
}
