//! The partitions that are assigned to this consumer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::context::Context;
use super::partition::{Partition, ReceivedRecord};
use queue::{Class, PoolName};

/// How long a class waits until the partitions of more urgent classes are known to be empty.
const CLASS_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct AssignedPartitions {
    by_number: BTreeMap<u64, Partition>,
    /// Each partition gets a new number, even if it was assigned before.
    last_number: u64,
    /// The partition of a class that is read first. It changes with every batch, so that each partition is first at
    /// some time.
    turn: usize,
}

impl AssignedPartitions {
    pub(super) fn add(&mut self, partition: Partition) {
        self.last_number += 1;
        self.by_number.insert(self.last_number, partition);
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.by_number.contains_key(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Partition> {
        self.by_number.get_mut(&number)
    }

    /// All partitions, with their numbers.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Partition)> {
        self.by_number.iter_mut().map(|(number, partition)| (*number, partition))
    }

    /// The partitions that are in `list`.
    pub(super) fn listed_mut(&mut self, list: &TopicPartitionList) -> impl Iterator<Item = &mut Partition> {
        self.by_number.values_mut().filter(|partition| is_listed(list, partition))
    }

    pub(super) fn remove_listed(&mut self, list: &TopicPartitionList) {
        self.by_number.retain(|_, partition| !is_listed(list, partition));
    }

    /// Whether a partition has changed since its last commit.
    pub(super) fn is_dirty(&self) -> bool {
        self.by_number.values().any(|partition| partition.is_dirty)
    }

    /// Takes up to `max` records, the most urgent class first, for a caller that has waited since `since`. A class
    /// waits until those above it are known to have no record.
    pub(super) fn take(
        &mut self,
        consumer: &BaseConsumer<Context>,
        pool: &PoolName,
        max: usize,
        since: Instant,
    ) -> Result<Vec<ReceivedRecord>, KafkaError> {
        let mut all = Vec::new();
        self.turn = self.turn.wrapping_add(1);
        for class in Class::ALL {
            let of_class =
                self.by_number.iter().filter(|(_, partition)| partition.class == class && !partition.is_leaving);
            let mut numbers: Vec<u64> = of_class.map(|(number, _)| *number).collect();
            let turn = self.turn.checked_rem(numbers.len()).unwrap_or(0);
            numbers.rotate_left(turn);
            for number in &numbers {
                let Some(partition) = self.by_number.get_mut(number) else { continue };
                let (taken, result) = partition.take(*number, consumer, pool, max - all.len());
                all.extend(taken);
                match result {
                    Ok(()) => {}
                    Err(error) if all.is_empty() => return Err(error),
                    Err(error) => tracing::warn!(%pool, %error, "cannot receive from a partition"),
                }
                if all.len() == max {
                    return Ok(all);
                }
            }
            for number in &numbers {
                let Some(partition) = self.by_number.get_mut(number) else { continue };
                if !partition.is_drained(consumer) {
                    if !all.is_empty() || since.elapsed() < CLASS_TIMEOUT {
                        return Ok(all);
                    }
                    partition.give_up_waiting();
                }
            }
        }
        Ok(all)
    }

    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        self.by_number.clear();
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.by_number.values()
    }
}

fn is_listed(list: &TopicPartitionList, partition: &Partition) -> bool {
    list.find_partition(&partition.topic, partition.number).is_some()
}
