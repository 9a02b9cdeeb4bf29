//! The choice of the items that share the next batch. It is pure, without a clock or a thread.
//!
//! Items of one shape wait in one bucket. A batch is formed only when a device is free. So the most urgent items of
//! that moment go first, and no item waits for a timer.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use jiff::Timestamp;
use queue::Class;

/// Waiting items, by bucket and urgency.
#[derive(Debug)]
pub(crate) struct Buckets<K, T> {
    buckets: HashMap<Bucket<K>, BTreeMap<Urgency, T>>,
    pushed: u64,
    waiting: usize,
}

/// The key of a bucket. Only items of one bucket share a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bucket<K> {
    Shape(K),
    /// The bucket of a single item that must run alone.
    Alone(u64),
}

/// The order of items: the smallest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Urgency {
    class: Class,
    deadline_at: Timestamp,
    pushed: u64,
}

impl<K: Hash + Eq + Clone, T> Buckets<K, T> {
    pub(crate) fn new() -> Self {
        Self { buckets: HashMap::new(), pushed: 0, waiting: 0 }
    }

    /// Adds an item. It shares batches with items of the same `shape`, or with no item if that is `None`.
    pub(crate) fn push(&mut self, shape: Option<K>, class: Class, deadline_at: Option<Timestamp>, item: T) {
        self.pushed += 1;
        self.waiting += 1;
        let bucket = shape.map_or(Bucket::Alone(self.pushed), Bucket::Shape);
        let urgency = Urgency { class, deadline_at: deadline_at.unwrap_or(Timestamp::MAX), pushed: self.pushed };
        self.buckets.entry(bucket).or_default().insert(urgency, item);
    }

    /// Takes the most urgent item and up to `max_items - 1` that share its bucket, the most urgent first.
    pub(crate) fn take(&mut self, max_items: usize) -> Vec<T> {
        let first = |items: &BTreeMap<Urgency, T>| items.first_key_value().map(|(urgency, _)| *urgency);
        let most_urgent = self.buckets.iter().min_by_key(|(_, items)| first(items)).map(|(bucket, _)| bucket.clone());
        let Some(bucket) = most_urgent else { return Vec::new() };
        let Some(items) = self.buckets.get_mut(&bucket) else { return Vec::new() };
        let mut batch = Vec::with_capacity(items.len().min(max_items));
        while batch.len() < max_items
            && let Some((_, item)) = items.pop_first()
        {
            batch.push(item);
        }
        if items.is_empty() {
            self.buckets.remove(&bucket);
        }
        self.waiting -= batch.len();
        batch
    }

    /// Takes the items that `is_taken` accepts, in no particular order.
    pub(crate) fn take_if(&mut self, is_taken: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for items in self.buckets.values_mut() {
            let keys: Vec<Urgency> =
                items.iter().filter(|(_, item)| is_taken(item)).map(|(urgency, _)| *urgency).collect();
            taken.extend(keys.iter().filter_map(|urgency| items.remove(urgency)));
        }
        self.buckets.retain(|_, items| !items.is_empty());
        self.waiting -= taken.len();
        taken
    }

    /// Takes all items, in no particular order.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.waiting = 0;
        self.buckets.drain().flat_map(|(_, items)| items.into_values()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets(items: &[(Option<&'static str>, Class, Option<i64>)]) -> Buckets<&'static str, usize> {
        let mut buckets = Buckets::new();
        for (index, (shape, class, deadline)) in items.iter().enumerate() {
            buckets.push(*shape, *class, deadline.map(|at| Timestamp::from_second(at).unwrap()), index);
        }
        buckets
    }

    #[test]
    fn the_most_urgent_class_goes_first_then_the_deadline_then_the_order_of_arrival() {
        use Class::{Batch, Premium, Standard};
        let mut buckets = buckets(&[
            (Some("a"), Batch, Some(1)),
            (Some("a"), Standard, None),
            (Some("a"), Standard, Some(9)),
            (Some("a"), Standard, Some(5)),
            (Some("a"), Premium, None),
            (Some("a"), Standard, None),
        ]);
        assert_eq!(buckets.take(10), [4, 3, 2, 1, 5, 0]);
    }

    #[test]
    fn only_items_of_one_shape_share_a_batch() {
        let standard = Class::Standard;
        let mut buckets = buckets(&[
            (Some("a"), standard, None),
            (Some("b"), standard, None),
            (Some("a"), standard, None),
            (Some("b"), Class::Premium, None),
        ]);
        assert_eq!([buckets.take(8), buckets.take(8), buckets.take(8)], [vec![3, 1], vec![0, 2], vec![]]);
    }

    #[test]
    fn an_item_that_must_run_alone_shares_no_batch() {
        let standard = Class::Standard;
        let mut buckets = buckets(&[(None, standard, None), (Some("a"), standard, None), (None, standard, None)]);
        assert_eq!([buckets.take(8), buckets.take(8), buckets.take(8)], [vec![0], vec![1], vec![2]]);
        assert!(buckets.is_empty());
    }

    proptest! {
        #[test]
        fn every_item_is_taken_once_in_batches_within_the_limit(
            shapes in prop::collection::vec((prop::option::of(0..4_u8), 0..3_usize), 0..100),
            max_items in 1..10_usize,
        ) {
            let mut buckets = Buckets::new();
            for (index, (shape, class)) in shapes.iter().enumerate() {
                buckets.push(*shape, Class::ALL[*class], None, index);
            }
            let mut taken = Vec::new();
            while !buckets.is_empty() {
                let batch = buckets.take(max_items);
                prop_assert!(!batch.is_empty() && batch.len() <= max_items);
                let first = shapes[batch[0]].0;
                prop_assert!(batch.len() == 1 || first.is_some());
                prop_assert!(batch.iter().all(|index| shapes[*index].0 == first));
                taken.extend(batch);
            }
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..shapes.len()).collect::<Vec<_>>());
        }
    }
}
