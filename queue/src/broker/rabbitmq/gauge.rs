//! Reading how much waits.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::Channel;

use super::link::Link;
use super::queues;
use crate::broker::{Depth, Gauge};
use crate::{Class, PoolName, Result};

/// Asks the queues themselves: the numbers of the management API are seconds old.
pub(super) struct RabbitMqGauge {
    link: Arc<Link>,
    /// Its own, because asking for a queue that is not there closes it.
    channel: tokio::sync::Mutex<Option<Channel>>,
}

impl RabbitMqGauge {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), channel: tokio::sync::Mutex::default() }
    }

    async fn waiting(&self, pool: &PoolName, class: Class) -> Result<u64> {
        let mut kept = self.channel.lock().await;
        let name = queues::name(self.link.prefix(), pool, class)?;
        // The connection may have broken since the last reading.
        if let Some(channel) = kept.take()
            && let Ok(waiting) = queues::waiting(&channel, name.clone()).await
        {
            *kept = waiting.map(|_| channel);
            return Ok(waiting.unwrap_or(0));
        }
        let (_, channel) = self.link.channel().await?;
        let waiting = queues::waiting(&channel, name).await?;
        // Nobody has published to a queue that is not there, and asking for it closed the channel.
        *kept = waiting.map(|_| channel);
        Ok(waiting.unwrap_or(0))
    }
}

#[async_trait]
impl Gauge for RabbitMqGauge {
    async fn depth(&self, pool: &PoolName) -> Result<Depth> {
        let mut depth = Depth { in_flight: None, ..Depth::default() };
        for class in Class::ALL {
            depth.waiting_by_class[class as usize] = self.waiting(pool, class).await?;
        }
        Ok(depth)
    }
}
