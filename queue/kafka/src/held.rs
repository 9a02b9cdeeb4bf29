//! What is in our worker's hands.

use std::collections::HashMap;
use std::sync::Arc;

use super::consumer::Hold;
use queue::driver::DeliveryTag;

/// Where the record of a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The membership's number for the partition.
    pub(super) partition: u64,
    /// Which of the logs that the partition has had meanwhile.
    pub(super) log: u64,
    pub(super) offset: i64,
}

/// The deliveries of one membership, by number. What is not here is no longer ours.
pub(super) struct Held {
    hold: Arc<Hold>,
    by_number: HashMap<i64, Place>,
}

impl Held {
    pub(super) fn new(hold: Arc<Hold>) -> Self {
        Self { hold, by_number: HashMap::new() }
    }

    /// A record is handed out: the name of that delivery, and who takes it back.
    pub(super) fn add(&mut self, place: Place) -> (DeliveryTag, Arc<Hold>) {
        let number = self.hold.next_number();
        self.by_number.insert(number, place);
        (DeliveryTag { message: place.offset, delivery: number }, Arc::clone(&self.hold))
    }

    /// A delivery is settled or given back. `None`: it is not ours, or no longer.
    pub(super) fn remove(&mut self, tag: DeliveryTag) -> Option<Place> {
        if self.by_number.get(&tag.delivery)?.offset != tag.message {
            return None;
        }
        self.by_number.remove(&tag.delivery)
    }

    /// Only what is out of these partitions is still ours.
    pub(super) fn retain(&mut self, is_ours: impl Fn(u64) -> bool) {
        self.by_number.retain(|_, place| is_ours(place.partition));
    }

    /// Nothing is ours any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Place> {
        std::mem::take(&mut self.by_number).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: i64) -> Place {
        Place { partition: 1, log: 0, offset }
    }

    #[test]
    fn a_delivery_of_a_former_membership_is_none_of_the_next() {
        let (commands, _inbox) = crossbeam_channel::unbounded();
        let hold = Arc::new(Hold::new(commands));
        let (mut former, mut next) = (Held::new(Arc::clone(&hold)), Held::new(hold));
        let (old, _) = former.add(place(7));
        let (new, _) = next.add(place(7));
        assert_eq!(next.remove(old), None);
        assert_eq!(next.remove(DeliveryTag { message: 8, ..new }), None);
        assert_eq!(next.remove(new), Some(place(7)));
        assert_eq!(next.remove(new), None);
    }
}
