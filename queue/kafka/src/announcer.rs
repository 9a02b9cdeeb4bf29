//! Publishes the endings of jobs to a topic.

use async_trait::async_trait;

use super::publisher::{OutgoingRecord, Publisher};
use super::record;
use queue::Result;
use queue::driver::Event;
use queue::driver::{Announcer, Ending};

pub(super) struct KafkaAnnouncer {
    pub(super) publisher: Publisher,
    pub(super) topic: String,
}

#[async_trait]
impl Announcer for KafkaAnnouncer {
    async fn announce(&self, endings: &[Ending]) -> Result<()> {
        if !self.publisher.cluster().is_known_topic(&self.topic) {
            self.publisher.ensure_topics(vec![self.topic.clone()]).await?;
        }
        let records = endings.iter().map(|ending| {
            let (headers, value) = record::write(Event::of_ending(ending));
            OutgoingRecord { topic: self.topic.clone(), job: &ending.id, headers, value }
        });
        self.publisher.publish(records).await
    }
}
