//! Jobs in RabbitMQ, 3.10 and later.
//!
//! A pool has a durable quorum queue per class, `<prefix>.<pool>.<class>`, which the default exchange routes to.
//! Producers and consumers declare the three queues of a pool. Other programs may publish to them too, see `message.rs`.
//!
//! A pool's [`queue::Route`] may name other queues. These may be of any kind; a missing one is declared in the same
//! way.

mod announcer;
mod consumer;
mod error;
mod existing_queues;
#[cfg(test)]
mod fixture;
mod gauge;
mod link;
mod message;
mod producer;
#[cfg(test)]
mod proxy;
mod publisher;
mod queues;
mod risks;
mod session;
#[cfg(test)]
mod tests;
mod url;

use std::sync::Arc;

use async_trait::async_trait;

use self::announcer::RabbitMqAnnouncer;
use self::consumer::RabbitMqConsumer;
use self::gauge::RabbitMqGauge;
use self::link::Link;
use self::producer::RabbitMqProducer;
use self::publisher::Publisher;
pub use self::url::RabbitMqUrl;
use queue::{Announcer, Broker, Consumer, Gauge, PoolExpectation, PoolName, Producer, Result, Risk, Routes};

/// The broker that a [`RabbitMqUrl`] names.
pub struct RabbitMqBroker {
    /// A server with too little memory or disk space stops reading from connections that publish. Consumers must still
    /// settle, so they use another connection.
    publishing: Arc<Link>,
    consuming: Arc<Link>,
    /// Every queue that does not exist costs a channel. So this connection runs out of channels and is then replaced.
    reading: Arc<Link>,
    routes: Routes,
}

impl RabbitMqBroker {
    /// Opens the broker. It connects when the first call needs it.
    pub fn open(url: &RabbitMqUrl, routes: &Routes) -> Result<Self> {
        let link = |purpose| Link::new(url, purpose);
        let (publishing, consuming, reading) = (link("publishing")?, link("consuming")?, link("reading")?);
        Ok(Self { publishing, consuming, reading, routes: routes.clone() })
    }
}

#[async_trait]
impl Broker for RabbitMqBroker {
    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(RabbitMqProducer { publisher: Publisher::new(&self.publishing) }))
    }

    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(RabbitMqConsumer::start(
            &self.consuming,
            pool,
            queues::sources(self.consuming.prefix(), pool, &self.routes)?,
        )))
    }

    async fn gauge(&self) -> Result<Arc<dyn Gauge>> {
        Ok(Arc::new(RabbitMqGauge::new(&self.reading, &self.routes)))
    }

    async fn announcer(&self, pool: &PoolName) -> Result<Option<Arc<dyn Announcer>>> {
        let Some(queue) = self.routes.results_to(pool) else { return Ok(None) };
        let queue = queues::short(queue)?;
        Ok(Some(Arc::new(RabbitMqAnnouncer { publisher: Publisher::new(&self.publishing), queue })))
    }

    async fn risks(&self, pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
        // The reading fails if the server cannot be reached.
        let gauge = RabbitMqGauge::new(&self.reading, &self.routes);
        let names: Vec<PoolName> = pools.iter().map(|pool| pool.pool.clone()).collect();
        gauge.depths(&names).await.into_iter().collect::<Result<Vec<_>>>()?;
        let named = pools.iter().flat_map(|pool| self.routes.jobs_from(&pool.pool)).map(String::as_str);
        let mut risks = risks::unreadable_settings(self.consuming.prefix(), &named.collect::<Vec<_>>(), pools);
        for name in &names {
            for queue in queues::pool_queues(self.reading.prefix(), name)? {
                risks.extend(risks::refused_queue(&self.reading, &queue).await?);
            }
        }
        Ok(risks)
    }
}
