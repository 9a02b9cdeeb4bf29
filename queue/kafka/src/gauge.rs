//! Reads the depths of pools from the committed offsets of their groups and the ends of their logs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::admin::{self, CommittedOffset, OffsetsQuery};
use super::cluster::{CALL_TIMEOUT, Cluster, call_error, serve_events};
use super::context::Context;

use super::error::failed;
use super::mark::Mark;
use queue::driver::{Depth, Gauge, same_for_all};
use queue::{Class, PoolName, Result};

pub(super) struct KafkaGauge {
    cluster: Arc<Cluster>,
}

/// In Kafka's protocol (`ListOffsets`) and in librdkafka, these times stand for the two ends of a log.
const LOG_START: Offset = Offset::Beginning;
const LOG_END: Offset = Offset::End;

/// An offset of each partition, by topic and number.
type Offsets = HashMap<(String, i32), KafkaResult<i64>>;

impl KafkaGauge {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

#[async_trait]
impl Gauge for KafkaGauge {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let names = pools.to_vec();
        let read = move |cluster: &Cluster| {
            let client = cluster.client()?;
            let depths = read_depths(cluster, &client, &names);
            serve_events(&client);
            depths
        };
        same_for_all(pools, self.cluster.run_blocking("read the depths", read).await)
    }
}

/// The topics and partitions of a pool.
struct PoolTopics {
    topics: Vec<(String, Class)>,
    partitions: TopicPartitionList,
    max_consumers: u64,
}

fn read_depths(cluster: &Cluster, client: &BaseConsumer<Context>, pools: &[PoolName]) -> Result<Vec<Result<Depth>>> {
    let topics_of = |pool| cluster.topics(pool).into_iter().map(|(topic, _)| topic);
    let topics: BTreeSet<String> = pools.iter().flat_map(topics_of).collect();
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let counts =
        admin::partition_counts(client, &topics).map_err(|error| call_error(client, "look up the topics", error))?;
    let found: Vec<Result<PoolTopics>> = pools.iter().map(|pool| find(cluster, pool, &counts)).collect();
    let has_partitions = |found: &Result<PoolTopics>| found.as_ref().is_ok_and(|found| found.partitions.count() > 0);

    // The order matters: a job that is taken or published meanwhile counts as waiting, rather than not at all.
    let existing = pools.iter().zip(&found).filter(|(_, found)| has_partitions(found));
    let queries: Vec<_> = existing
        .filter_map(|(pool, found)| {
            let partitions = found.as_ref().ok()?.partitions.clone();
            Some(OffsetsQuery { group: cluster.url.group(pool), partitions })
        })
        .collect();
    let mut committed = admin::committed(client, &queries, CALL_TIMEOUT).into_iter();
    let mut every = TopicPartitionList::new();
    for (topic, count) in &counts {
        if let Ok(count) = count
            && *count > 0
        {
            every.add_partition_range(topic, 0, count - 1);
        }
    }
    let ends_at =
        |end| offsets(client, &every, end).map_err(|error| call_error(client, "read the ends of the logs", error));
    let (starts, ends) = (ends_at(LOG_START)?, ends_at(LOG_END)?);
    client.context().clear_error();

    let depth = |(pool, found): (&PoolName, Result<PoolTopics>)| {
        let has_partitions = has_partitions(&found);
        let PoolTopics { topics, max_consumers, .. } = found?;
        let mut depth = Depth { in_flight: Some(0), max_consumers: Some(max_consumers), ..Depth::default() };
        let committed = if has_partitions { committed.next() } else { None };
        let reading = |error| call_error(client, &format!("read the depth of the pool {pool}"), error);
        for CommittedOffset { topic, partition, offset } in committed.transpose().map_err(reading)?.unwrap_or_default()
        {
            let at = (topic, partition);
            let (start, end) = (offset_in(&starts, &at).map_err(reading)?, offset_in(&ends, &at).map_err(reading)?);
            let committed = offset.map(|(offset, text)| (offset, Mark::from_text(&text).unwrap_or_default()));
            let (waiting, in_flight) = depth_of(start, end, committed.as_ref());
            if let Some((_, class)) = topics.iter().find(|(name, _)| *name == at.0) {
                depth.waiting_by_class[*class as usize] += waiting;
            }
            depth.in_flight = depth.in_flight.map(|total| total + in_flight);
        }
        Ok(depth)
    };
    Ok(pools.iter().zip(found).map(depth).collect())
}

fn find(cluster: &Cluster, pool: &PoolName, counts: &HashMap<String, KafkaResult<i32>>) -> Result<PoolTopics> {
    let topics = cluster.topics(pool);
    let (mut partitions, mut most) = (TopicPartitionList::new(), 0);
    for (topic, _) in &topics {
        let count = match counts.get(topic) {
            Some(Ok(count)) => *count,
            Some(Err(error)) => return Err(failed(&format!("look up the topic {topic}"), error.clone())),
            None => return Err(failed(&format!("look up the topic {topic}"), unknown())),
        };
        if count > 0 {
            partitions.add_partition_range(topic, 0, count - 1);
        }
        most = most.max(count);
    }
    // The limit is the number of partitions of one class. Otherwise the partitions of a consumer could all belong to an
    // idle class, and it would receive nothing.
    let shares = if most == 0 { cluster.url.partitions() } else { most };
    Ok(PoolTopics { topics, partitions, max_consumers: u64::from(shares.unsigned_abs()) })
}

/// The offsets at which the logs of these partitions start, or end. Costs one request per server.
fn offsets(client: &BaseConsumer<Context>, partitions: &TopicPartitionList, end: Offset) -> KafkaResult<Offsets> {
    if partitions.count() == 0 {
        return Ok(Offsets::new());
    }
    let mut partitions = partitions.clone();
    partitions.set_all_offsets(end)?;
    let found = client.offsets_for_times(partitions, CALL_TIMEOUT)?;
    let offsets = found.elements().into_iter().map(|element| {
        let offset = element.error().map(|()| element.offset().to_raw().unwrap_or(0).max(0));
        ((element.topic().to_owned(), element.partition()), offset)
    });
    Ok(offsets.collect())
}

fn offset_in(offsets: &Offsets, partition: &(String, i32)) -> KafkaResult<i64> {
    offsets.get(partition).cloned().unwrap_or_else(|| Err(unknown()))
}

/// The reply lacks a topic or partition.
fn unknown() -> KafkaError {
    KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition)
}

/// The number of waiting records and the number of deliveries in a log from `start` to `end`, with this committed
/// offset and mark.
fn depth_of(start: i64, end: i64, committed: Option<&(i64, Mark)>) -> (u64, u64) {
    let Some((committed, mark)) = committed else {
        return (end.saturating_sub(start).max(0).unsigned_abs(), 0);
    };
    if *committed < start || *committed > end {
        // The open records are no longer in the log. Or the log was truncated or created again, and is read from its
        // start.
        return (end.saturating_sub(start).max(0).unsigned_abs(), 0);
    }
    let delivered = committed.saturating_add_unsigned(mark.delivered);
    let undelivered = end.saturating_sub(delivered).max(0).unsigned_abs();
    (undelivered + mark.returned, mark.open_count() - mark.returned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_records_are_deliveries_unless_they_were_returned() {
        let mark = Mark { delivered: 5, returned: 1, open: vec![0..=1, 4..=4] };
        assert_eq!(depth_of(0, 20, Some(&(10, mark))), (5 + 1, 2));
    }

    #[test]
    fn without_a_commit_every_record_in_the_log_waits() {
        assert_eq!(depth_of(7, 20, None), (13, 0));
        assert_eq!(depth_of(0, 0, None), (0, 0));
    }

    #[test]
    fn records_that_have_left_the_log_are_not_counted() {
        assert_eq!(depth_of(15, 20, Some(&(10, Mark { delivered: 2, returned: 0, open: vec![0..=1] }))), (5, 0));
    }

    #[test]
    fn a_log_that_ends_before_the_committed_offset_waits_from_its_start() {
        assert_eq!(depth_of(0, 3, Some(&(10, Mark::default()))), (3, 0));
        assert_eq!(depth_of(2, 3, Some(&(10, Mark { delivered: 2, returned: 0, open: vec![0..=1] }))), (1, 0));
        assert_eq!(depth_of(0, 0, Some(&(10, Mark::default()))), (0, 0));
    }
}
