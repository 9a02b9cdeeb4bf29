//! Publishes jobs to their pools' queues.

use async_trait::async_trait;

use super::message::Message;
use super::publisher::Publisher;
use super::queues::Target;
use queue::driver::Producer;
use queue::{Job, Result};

pub(super) struct RabbitMqProducer {
    pub(super) publisher: Publisher,
}

#[async_trait]
impl Producer for RabbitMqProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let prefix = self.publisher.prefix();
        // All messages are made before the first is sent, so that a job that cannot be sent fails the call as a whole.
        let messages = jobs.iter().map(|job| Message::of_job(job, prefix)).collect::<Result<Vec<_>>>()?;
        let targets = jobs.iter().map(|job| Target::Pool(job.pool.clone())).collect();
        self.publisher.publish(&messages, &targets).await
    }
}
