//! A broker with faults on demand.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Call, Faulty};
use queue::driver::same_for_all;
use queue::{
    Announcer, Broker, Consumer, Delivery, Depth, Ending, Gauge, Job, PoolExpectation, PoolName, Producer, Result,
    Risk, Settlement,
};

pub(super) struct FaultyBroker {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) faulty: Faulty,
}

struct Role<T: ?Sized> {
    inner: Arc<T>,
    faulty: Faulty,
}

#[async_trait]
impl Broker for FaultyBroker {
    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(Role { inner: self.broker.producer().await?, faulty: self.faulty.clone() }))
    }

    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(Role { inner: self.broker.consumer(pool).await?, faulty: self.faulty.clone() }))
    }

    async fn gauge(&self) -> Result<Arc<dyn Gauge>> {
        Ok(Arc::new(Role { inner: self.broker.gauge().await?, faulty: self.faulty.clone() }))
    }

    async fn announcer(&self, pool: &PoolName) -> Result<Option<Arc<dyn Announcer>>> {
        let announcer = self.broker.announcer(pool).await?;
        Ok(announcer.map(|inner| Arc::new(Role { inner, faulty: self.faulty.clone() }) as Arc<dyn Announcer>))
    }

    async fn risks(&self, pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
        self.faulty.call(Call::Risks, self.broker.risks(pools)).await
    }
}

#[async_trait]
impl Producer for Role<dyn Producer> {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        self.faulty.check(Call::Publish, jobs.iter().map(|job| &job.id))?;
        self.faulty.call(Call::Publish, self.inner.publish(jobs)).await
    }
}

#[async_trait]
impl Announcer for Role<dyn Announcer> {
    async fn announce(&self, endings: &[Ending]) -> Result<()> {
        self.faulty.check(Call::Announce, endings.iter().map(|ending| &ending.id))?;
        self.faulty.call(Call::Announce, self.inner.announce(endings)).await
    }
}

#[async_trait]
impl Consumer for Role<dyn Consumer> {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        self.faulty.call(Call::Receive, self.inner.receive(max)).await
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        self.faulty.call(Call::Settle, self.inner.settle(deliveries)).await
    }
}

#[async_trait]
impl Gauge for Role<dyn Gauge> {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let read = async { Ok(self.inner.depths(pools).await) };
        same_for_all(pools, self.faulty.call(Call::Depths, read).await)
    }
}
