//! The deliveries that the worker holds.

use std::collections::HashMap;
use std::sync::Arc;

use super::command::Requeuer;
use queue::driver::DeliveryTag;

/// The position of a delivery's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordPosition {
    /// The membership's number for the partition.
    pub(super) partition: u64,
    /// The number of times that the log of the partition had been created again before this record.
    pub(super) log: u64,
    pub(super) offset: i64,
}

/// The unsettled deliveries of one membership, by number. Deliveries that are not in it belong to another consumer or
/// an earlier membership, and are ignored.
pub(super) struct UnsettledDeliveries {
    requeuer: Arc<Requeuer>,
    by_number: HashMap<i64, RecordPosition>,
}

impl UnsettledDeliveries {
    pub(super) fn new(requeuer: Arc<Requeuer>) -> Self {
        Self { requeuer, by_number: HashMap::new() }
    }

    /// Adds a delivery of this record. Returns its tag, and the requeuer to call when it is dropped.
    pub(super) fn add(&mut self, position: RecordPosition) -> (DeliveryTag, Arc<Requeuer>) {
        let number = self.requeuer.next_number();
        self.by_number.insert(number, position);
        (DeliveryTag { message: position.offset, delivery: number }, Arc::clone(&self.requeuer))
    }

    /// Removes a delivery that is acknowledged or requeued. `None`: it is not in this list.
    pub(super) fn remove(&mut self, tag: DeliveryTag) -> Option<RecordPosition> {
        if self.by_number.get(&tag.delivery)?.offset != tag.message {
            return None;
        }
        self.by_number.remove(&tag.delivery)
    }

    /// Forgets the deliveries of partitions that are no longer assigned to this consumer.
    pub(super) fn retain(&mut self, is_assigned: impl Fn(u64) -> bool) {
        self.by_number.retain(|_, position| is_assigned(position.partition));
    }

    /// Removes all deliveries.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = RecordPosition> {
        std::mem::take(&mut self.by_number).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(offset: i64) -> RecordPosition {
        RecordPosition { partition: 1, log: 0, offset }
    }

    #[test]
    fn a_delivery_of_a_former_membership_is_none_of_the_next() {
        let (commands, _inbox) = crossbeam_channel::unbounded();
        let requeuer = Arc::new(Requeuer::new(commands));
        let mut former = UnsettledDeliveries::new(Arc::clone(&requeuer));
        let mut next = UnsettledDeliveries::new(requeuer);
        let (old, _) = former.add(position(7));
        let (new, _) = next.add(position(7));
        assert_eq!(next.remove(old), None);
        assert_eq!(next.remove(DeliveryTag { message: 8, ..new }), None);
        assert_eq!(next.remove(new), Some(position(7)));
        assert_eq!(next.remove(new), None);
    }
}
