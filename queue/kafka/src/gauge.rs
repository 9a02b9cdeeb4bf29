//! Reads the backlogs of pools off their groups' commits and the ends of their logs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::admin::{self, Committed, Question};
use super::cluster::{CALL_TIMEOUT, Cluster, because, hear};
use super::context::Context;

use super::error::failed;
use super::mark::Mark;
use queue::driver::{Depth, Gauge, same_for_all};
use queue::{Class, PoolName, Result};

pub(super) struct KafkaGauge {
    cluster: Arc<Cluster>,
}

/// The times that stand for a log's ends, in Kafka's protocol (`ListOffsets`) and so in librdkafka's.
const LOG_START: Offset = Offset::Beginning;
const LOG_END: Offset = Offset::End;

/// Of each partition, by topic and number.
type Offsets = HashMap<(String, i32), KafkaResult<i64>>;

impl KafkaGauge {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

#[async_trait]
impl Gauge for KafkaGauge {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let asked = pools.to_vec();
        let read = move |cluster: &Cluster| {
            let client = cluster.client()?;
            let depths = read_depths(cluster, &client, &asked);
            hear(&client);
            depths
        };
        same_for_all(pools, self.cluster.ask("read the depths", read).await)
    }
}

/// A pool whose topics were found.
struct Found {
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
        admin::partition_counts(client, &topics).map_err(|error| because(client, "look up the topics", error))?;
    let found: Vec<Result<Found>> = pools.iter().map(|pool| find(cluster, pool, &counts)).collect();
    let is_asked = |found: &Result<Found>| found.as_ref().is_ok_and(|found| found.partitions.count() > 0);

    // In this order: what is taken or comes meanwhile is counted as waiting rather than not at all.
    let asked = pools.iter().zip(&found).filter(|(_, found)| is_asked(found));
    let questions: Vec<_> = asked
        .filter_map(|(pool, found)| {
            let partitions = found.as_ref().ok()?.partitions.clone();
            Some(Question { group: cluster.url.group(pool), partitions })
        })
        .collect();
    let mut committed = admin::committed(client, &questions, CALL_TIMEOUT).into_iter();
    let mut every = TopicPartitionList::new();
    for (topic, count) in &counts {
        if let Ok(count) = count
            && *count > 0
        {
            every.add_partition_range(topic, 0, count - 1);
        }
    }
    let at = |end| offsets(client, &every, end).map_err(|error| because(client, "read the ends of the logs", error));
    let (starts, ends) = (at(LOG_START)?, at(LOG_END)?);
    client.context().is_well();

    let depth = |(pool, found): (&PoolName, Result<Found>)| {
        let is_asked = is_asked(&found);
        let Found { topics, max_consumers, .. } = found?;
        let mut depth = Depth { in_flight: Some(0), max_consumers: Some(max_consumers), ..Depth::default() };
        let committed = if is_asked { committed.next() } else { None };
        let reading = |error| because(client, &format!("read the depth of the pool {pool}"), error);
        for Committed { topic, partition, offset } in committed.transpose().map_err(reading)?.unwrap_or_default() {
            let place = (topic, partition);
            let (start, end) =
                (offset_in(&starts, &place).map_err(reading)?, offset_in(&ends, &place).map_err(reading)?);
            let committed = offset.map(|(offset, text)| (offset, Mark::from_text(&text).unwrap_or_default()));
            let (waiting, in_flight) = depth_of(start, end, committed.as_ref());
            if let Some((_, class)) = topics.iter().find(|(known, _)| *known == place.0) {
                depth.waiting_by_class[*class as usize] += waiting;
            }
            depth.in_flight = depth.in_flight.map(|held| held + in_flight);
        }
        Ok(depth)
    };
    Ok(pools.iter().zip(found).map(depth).collect())
}

fn find(cluster: &Cluster, pool: &PoolName, counts: &HashMap<String, KafkaResult<i32>>) -> Result<Found> {
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
    // A consumer with partitions of an idle class alone finds nothing, so those of one class are what can be shared.
    let shares = if most == 0 { cluster.url.partitions() } else { most };
    Ok(Found { topics, partitions, max_consumers: u64::from(shares.unsigned_abs()) })
}

/// Where the logs of these partitions start, or end: one question to each server, however many they are.
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

fn offset_in(offsets: &Offsets, place: &(String, i32)) -> KafkaResult<i64> {
    offsets.get(place).cloned().unwrap_or_else(|| Err(unknown()))
}

/// The servers have left out what was asked for.
fn unknown() -> KafkaError {
    KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition)
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
