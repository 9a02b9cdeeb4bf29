//! Publishes jobs to their pools' topics.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::publisher::{OutgoingRecord, Publisher};
use super::record;
use queue::driver::Event;
use queue::driver::Producer;
use queue::{Class, Job, PoolName, Result};

pub(super) struct KafkaProducer {
    pub(super) publisher: Publisher,
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        let cluster = self.publisher.cluster();
        let topic = |job: &Job| cluster.url.topic(&job.pool, job.class);
        let new: BTreeSet<&PoolName> =
            jobs.iter().filter(|job| !cluster.is_known_topic(&topic(job))).map(|job| &job.pool).collect();
        if !new.is_empty() {
            let topics = new.into_iter().flat_map(|pool| Class::ALL.map(|class| cluster.url.topic(pool, class)));
            self.publisher.ensure_topics(topics.collect()).await?;
        }
        let records = jobs.iter().map(|job| {
            let (headers, value) = record::write(Event::of(job));
            OutgoingRecord { topic: topic(job), job: &job.id, headers, value }
        });
        self.publisher.publish(records).await
    }
}
