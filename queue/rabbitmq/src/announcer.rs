//! Publishes the endings of jobs to a queue.

use std::collections::HashSet;

use async_trait::async_trait;
use lapin::types::ShortString;

use super::message::Message;
use super::publisher::Publisher;
use super::queues::Target;
use queue::Result;
use queue::driver::{Announcer, Ending};

pub(super) struct RabbitMqAnnouncer {
    pub(super) publisher: Publisher,
    pub(super) queue: ShortString,
}

#[async_trait]
impl Announcer for RabbitMqAnnouncer {
    async fn announce(&self, endings: &[Ending]) -> Result<()> {
        if endings.is_empty() {
            return Ok(());
        }
        let message = |ending| Message::of_ending(ending, self.queue.clone());
        let messages = endings.iter().map(message).collect::<Result<Vec<_>>>()?;
        self.publisher.publish(&messages, &HashSet::from([Target::Named(self.queue.clone())])).await
    }
}
