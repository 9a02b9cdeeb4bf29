//! Jobs in RabbitMQ, 3.10 and later.
//!
//! A pool has a durable quorum queue per class, `<prefix>.<pool>.<class>`, reached through the default exchange. Whoever
//! publishes to a pool or takes from it declares the three; anybody else may publish to them, see [`message`].

mod consumer;
mod error;
mod gauge;
mod link;
mod message;
mod producer;
mod queues;
mod risks;
mod session;
#[cfg(test)]
mod tests;
mod url;

use std::sync::Arc;

use async_trait::async_trait;

use self::consumer::RabbitMqConsumer;
use self::gauge::RabbitMqGauge;
use self::link::Link;
use self::producer::RabbitMqProducer;
pub(crate) use self::url::RabbitMqUrl;
use super::{Broker, Consumer, Gauge, Producer};
use crate::{PoolExpectation, PoolName, Result, Risk};

pub(crate) struct RabbitMqBroker {
    /// A server that is short of memory or disk stops reading from connections that publish; what must go on, such as
    /// settling, has another connection.
    publishing: Arc<Link>,
    consuming: Arc<Link>,
}

impl RabbitMqBroker {
    pub(crate) fn open(url: &RabbitMqUrl) -> Result<Self> {
        Ok(Self { publishing: Link::new(url, "publishing")?, consuming: Link::new(url, "consuming")? })
    }
}

#[async_trait]
impl Broker for RabbitMqBroker {
    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(RabbitMqProducer::new(&self.publishing)))
    }

    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(RabbitMqConsumer::start(&self.consuming, pool)))
    }

    async fn gauge(&self) -> Result<Arc<dyn Gauge>> {
        Ok(Arc::new(RabbitMqGauge::new(&self.consuming)))
    }

    async fn risks(&self, pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
        // That it answers is found out too.
        let gauge = RabbitMqGauge::new(&self.consuming);
        for pool in pools {
            gauge.depth(&pool.pool).await?;
        }
        Ok(risks::not_told(self.consuming.prefix(), pools))
    }
}
