//! What is in our worker's hands.

use std::collections::HashMap;
use std::sync::Arc;

use super::consumer::Requeuer;
use queue::driver::DeliveryTag;

/// Where the record of a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordPosition {
    /// The membership's number for the partition.
    pub(super) partition: u64,
    /// Which of the logs that the partition has had meanwhile.
    pub(super) log: u64,
    pub(super) offset: i64,
}

/// The deliveries of one membership, by number. What is not here is no longer ours.
pub(super) struct UnsettledDeliveries {
    requeuer: Arc<Requeuer>,
    by_number: HashMap<i64, RecordPosition>,
}

impl UnsettledDeliveries {
    pub(super) fn new(requeuer: Arc<Requeuer>) -> Self {
        Self { requeuer, by_number: HashMap::new() }
    }

    /// A record is handed out: the name of that delivery, and who takes it back.
    pub(super) fn add(&mut self, position: RecordPosition) -> (DeliveryTag, Arc<Requeuer>) {
        let number = self.requeuer.next_number();
        self.by_number.insert(number, position);
        (DeliveryTag { message: position.offset, delivery: number }, Arc::clone(&self.requeuer))
    }

    /// A delivery is settled or given back. `None`: it is not ours, or no longer.
    pub(super) fn remove(&mut self, tag: DeliveryTag) -> Option<RecordPosition> {
        if self.by_number.get(&tag.delivery)?.offset != tag.message {
            return None;
        }
        self.by_number.remove(&tag.delivery)
    }

    /// Only what is out of these partitions is still ours.
    pub(super) fn retain(&mut self, is_ours: impl Fn(u64) -> bool) {
        self.by_number.retain(|_, position| is_ours(position.partition));
    }

    /// Nothing is ours any more.
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
        let (mut former, mut next) =
            (UnsettledDeliveries::new(Arc::clone(&requeuer)), UnsettledDeliveries::new(requeuer));
        let (old, _) = former.add(position(7));
        let (new, _) = next.add(position(7));
        assert_eq!(next.remove(old), None);
        assert_eq!(next.remove(DeliveryTag { message: 8, ..new }), None);
        assert_eq!(next.remove(new), Some(position(7)));
        assert_eq!(next.remove(new), None);
    }
}
