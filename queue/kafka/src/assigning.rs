//! A rebalance that waits for its answer.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;

use queue::{Error, Result};

/// How long the group may be unable to say where its partitions were left. Who is told nothing meanwhile is told why.
const PATIENCE: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) enum Unanswered {
    Assign(Assigning),
    Revoke { partitions: TopicPartitionList, deadline: Instant },
}

/// Partitions that are ours once the group has said where they were left.
pub(super) struct Assigning {
    pub(super) partitions: TopicPartitionList,
    deadline: Instant,
    ask_at: Instant,
    pause: Duration,
}

impl Assigning {
    pub(super) fn new(partitions: TopicPartitionList, now: Instant) -> Self {
        Self { partitions, deadline: now + PATIENCE, ask_at: now, pause: FIRST_PAUSE }
    }

    /// Whether to ask, now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.ask_at <= now
    }

    /// The group could not say: it is asked again later, and later still. After some seconds the error stands.
    pub(super) fn put_off(&mut self, error: Error, now: Instant) -> Result<()> {
        if now >= self.deadline {
            return Err(error);
        }
        self.ask_at = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::ErrorKind;

    #[test]
    fn a_group_that_cannot_say_is_asked_ever_less_often_and_not_for_ever() {
        let start = Instant::now();
        let mut assigning = Assigning::new(TopicPartitionList::new(), start);
        let (mut now, mut asked) = (start, 0);
        loop {
            assert!(assigning.is_due(now));
            asked += 1;
            if assigning.put_off(Error::new(ErrorKind::Unavailable, "not now"), now).is_err() {
                break;
            }
            assert!(!assigning.is_due(now));
            now = assigning.ask_at;
        }
        assert!(asked < 12, "asked {asked} times");
        assert!(now - start >= PATIENCE && now - start <= PATIENCE + LONGEST_PAUSE);
    }
}
