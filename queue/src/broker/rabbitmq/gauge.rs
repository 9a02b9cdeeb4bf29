//! Reading how much waits.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::Channel;
use lapin::types::ShortString;

use super::link::Link;
use super::queues::{self, Source};
use crate::broker::{Depth, Gauge};
use crate::{PoolName, Result, Routes};

/// Asks the queues themselves: the numbers of the management API are seconds old.
pub(super) struct RabbitMqGauge {
    link: Arc<Link>,
    routes: Routes,
    /// Its own, because asking for a queue that is not there closes it.
    channel: tokio::sync::Mutex<Option<Channel>>,
}

impl RabbitMqGauge {
    pub(super) fn new(link: &Arc<Link>, routes: &Routes) -> Self {
        Self { link: Arc::clone(link), routes: routes.clone(), channel: tokio::sync::Mutex::default() }
    }

    async fn waiting(&self, name: ShortString) -> Result<u64> {
        let mut kept = self.channel.lock().await;
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
        for Source { queue, class, .. } in queues::sources(self.link.prefix(), pool, &self.routes)? {
            depth.waiting_by_class[class as usize] += self.waiting(queue).await?;
        }
        Ok(depth)
    }
}
