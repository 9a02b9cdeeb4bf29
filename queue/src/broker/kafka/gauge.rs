//! Reads a pool's backlog off its group's commits and the ends of its logs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::{CALL_TIMEOUT, Cluster, because, hear};
use super::context::{Context, lock};
use super::mark::Mark;
use crate::broker::{Depth, Gauge};
use crate::{PoolName, Result};

pub(super) struct KafkaGauge {
    cluster: Arc<Cluster>,
    /// librdkafka knows one group per client.
    groups: Arc<Mutex<HashMap<PoolName, Arc<BaseConsumer<Context>>>>>,
}

/// The times that stand for a log's ends, in Kafka's protocol (`ListOffsets`) and so in librdkafka's.
const LOG_START: Offset = Offset::Beginning;
const LOG_END: Offset = Offset::End;

impl KafkaGauge {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, groups: Arc::default() }
    }
}

#[async_trait]
impl Gauge for KafkaGauge {
    async fn depth(&self, pool: &PoolName) -> Result<Depth> {
        let (groups, pool) = (Arc::clone(&self.groups), pool.clone());
        let read = move |cluster: &Cluster| {
            let known = lock(&groups).get(&pool).cloned();
            let group = match known {
                Some(group) => group,
                None => {
                    let group = Arc::new(cluster.consumer(&pool)?);
                    lock(&groups).insert(pool.clone(), Arc::clone(&group));
                    group
                }
            };
            let depth = read_depth(cluster, &group, &pool);
            hear(&group);
            depth
        };
        self.cluster.ask("read the depth", read).await
    }
}

fn read_depth(cluster: &Cluster, group: &BaseConsumer<Context>, pool: &PoolName) -> Result<Depth> {
    let action = format!("read the depth of the pool {pool}");
    let reading = |error| because(group, &action, error);
    let topics = cluster.topics(pool);
    let mut partitions = TopicPartitionList::new();
    let mut most = 0;
    for (topic, _) in &topics {
        let count = cluster.partition_count(topic)?;
        if count > 0 {
            partitions.add_partition_range(topic, 0, count - 1);
        }
        most = most.max(count);
    }
    // A consumer with partitions of an idle class alone finds nothing, so those of one class are what can be shared.
    let shares = if most == 0 { cluster.url.partitions() } else { most };
    let max_consumers = Some(u64::from(shares.unsigned_abs()));
    let mut depth = Depth { in_flight: Some(0), max_consumers, ..Depth::default() };
    if partitions.count() == 0 {
        return Ok(depth);
    }

    // In this order: what is taken or comes meanwhile is counted as waiting rather than not at all.
    let committed = group.committed_offsets(partitions.clone(), CALL_TIMEOUT).map_err(reading)?;
    let at = |end: Offset| -> KafkaResult<TopicPartitionList> {
        let mut partitions = partitions.clone();
        partitions.set_all_offsets(end)?;
        group.offsets_for_times(partitions, CALL_TIMEOUT)
    };
    let (starts, ends) = (at(LOG_START).map_err(reading)?, at(LOG_END).map_err(reading)?);
    group.context().is_well();

    for committed in committed.elements() {
        let (topic, partition) = (committed.topic(), committed.partition());
        let offset_in = |list: &TopicPartitionList| -> KafkaResult<i64> {
            let Some(element) = list.find_partition(topic, partition) else { return Ok(0) };
            element.error()?;
            Ok(if let Offset::Offset(offset) = element.offset() { offset } else { 0 })
        };
        committed.error().map_err(reading)?;
        let (start, end) = (offset_in(&starts).map_err(reading)?, offset_in(&ends).map_err(reading)?);
        let committed = match committed.offset() {
            Offset::Offset(offset) => Some((offset, Mark::from_text(committed.metadata()).unwrap_or_default())),
            _ => None,
        };
        let (waiting, in_flight) = depth_of(start, end, committed.as_ref());
        if let Some((_, class)) = topics.iter().find(|(known, _)| known == topic) {
            depth.waiting_by_class[*class as usize] += waiting;
        }
        depth.in_flight = depth.in_flight.map(|held| held + in_flight);
    }
    Ok(depth)
}

/// How much of a partition waits, and how much is held: of a log from `start` to `end`, with this commit.
fn depth_of(start: i64, end: i64, committed: Option<&(i64, Mark)>) -> (u64, u64) {
    let Some((committed, mark)) = committed else {
        return (end.saturating_sub(start).max(0).unsigned_abs(), 0);
    };
    if *committed < start || *committed > end {
        // What was open has left the log; or the log was cut short or has begun anew, and is read from its start.
        return (end.saturating_sub(start).max(0).unsigned_abs(), 0);
    }
    let handed_out = committed.saturating_add_unsigned(mark.handed_out);
    let never_handed_out = end.saturating_sub(handed_out).max(0).unsigned_abs();
    (never_handed_out + mark.back, mark.open_count() - mark.back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_held_unless_it_was_given_back() {
        let mark = Mark { handed_out: 5, back: 1, open: vec![0..=1, 4..=4] };
        assert_eq!(depth_of(0, 20, Some(&(10, mark))), (5 + 1, 2));
    }

    #[test]
    fn without_a_commit_everything_in_the_log_waits() {
        assert_eq!(depth_of(7, 20, None), (13, 0));
        assert_eq!(depth_of(0, 0, None), (0, 0));
    }

    #[test]
    fn what_has_left_the_log_is_not_counted() {
        assert_eq!(depth_of(15, 20, Some(&(10, Mark { handed_out: 2, back: 0, open: vec![0..=1] }))), (5, 0));
    }

    #[test]
    fn a_log_that_ends_before_the_commit_waits_from_its_start() {
        assert_eq!(depth_of(0, 3, Some(&(10, Mark::default()))), (3, 0));
        assert_eq!(depth_of(2, 3, Some(&(10, Mark { handed_out: 2, back: 0, open: vec![0..=1] }))), (1, 0));
        assert_eq!(depth_of(0, 0, Some(&(10, Mark::default()))), (0, 0));
    }
}
