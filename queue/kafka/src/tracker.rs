//! The records of one partition that were delivered, and the offset that may be committed.
//!
//! This module is pure: it uses offsets, but does not use Kafka. Deliveries are settled in any order. The offset to
//! commit is the one before which every record is acknowledged, and its [`Mark`] lists the open records after it.

use std::collections::BTreeSet;

use super::mark::Mark;

/// Tracks one partition for as long as it is assigned to this consumer.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Delivered by this consumer or an earlier one, and not acknowledged.
    open: BTreeSet<i64>,
    /// The open records that an earlier consumer held, and that have not been fetched yet.
    expected: BTreeSet<i64>,
    /// The open records that were requeued. They are in memory, and can be redelivered at once.
    returned: BTreeSet<i64>,
    /// No record from this offset on was ever delivered.
    first_undelivered: i64,
    /// The next fetched record has at least this offset.
    position: i64,
}

/// The state of a record when it is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was never delivered.
    New,
    /// It may have been delivered before.
    Redelivered,
    /// It was acknowledged before.
    Acknowledged,
}

impl Tracker {
    /// Starts from the committed offset and its mark.
    pub(super) fn resume(committed: Option<i64>, mark: Option<&Mark>) -> Self {
        let base = committed.unwrap_or(0);
        let mut tracker = Self { first_undelivered: base, position: base, ..Self::default() };
        if let Some(mark) = mark {
            tracker.first_undelivered = base.saturating_add_unsigned(mark.delivered);
            for run in &mark.open {
                tracker.expected.extend(run.clone().map(|offset| base.saturating_add_unsigned(offset)));
            }
            tracker.open.clone_from(&tracker.expected);
        }
        tracker
    }

    /// Whether a record at this offset means that the log was truncated or created again.
    pub(super) fn restarts_at(&self, offset: i64) -> bool {
        offset < self.position
    }

    /// Records a fetched record. It counts as delivered, unless it was acknowledged before. Records are fetched in
    /// order; offsets may be missing.
    pub(super) fn arrive(&mut self, offset: i64) -> Arrival {
        if self.restarts_at(offset) {
            // The log was created again, so the state of the former log does not apply.
            *self = Self { first_undelivered: offset, ..Self::default() };
        }
        self.drop_expected_before(offset);
        self.position = offset + 1;
        if offset >= self.first_undelivered {
            self.first_undelivered = offset + 1;
            self.open.insert(offset);
            return Arrival::New;
        }
        if self.expected.remove(&offset) { Arrival::Redelivered } else { Arrival::Acknowledged }
    }

    /// No record before `position` will be fetched any more: markers of transactions take offsets too, and so do
    /// aborted records. Returns whether this changes the state.
    pub(super) fn advance_to(&mut self, position: i64) -> bool {
        if position <= self.position {
            return false;
        }
        self.drop_expected_before(position);
        self.position = position;
        self.first_undelivered = self.first_undelivered.max(position);
        true
    }

    /// Forgets expected records before this offset, which are no longer in the log. If they stayed open, no later
    /// offset could ever be committed.
    fn drop_expected_before(&mut self, offset: i64) {
        while let Some(gone) = self.expected.first().copied().filter(|expected| *expected < offset) {
            self.expected.remove(&gone);
            self.open.remove(&gone);
        }
    }

    /// Whether an earlier consumer held records that have not been fetched yet.
    pub(super) fn expects_records(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Delivers the requeued record with the lowest offset again.
    pub(super) fn redeliver(&mut self) -> Option<i64> {
        self.returned.pop_first()
    }

    /// A record has been acknowledged.
    pub(super) fn acknowledge(&mut self, offset: i64) {
        self.open.remove(&offset);
    }

    /// A record has been requeued.
    pub(super) fn requeue(&mut self, offset: i64) {
        if self.open.contains(&offset) {
            self.returned.insert(offset);
        }
    }

    /// Whether the worker holds records of this partition.
    pub(super) fn has_unsettled_records(&self) -> bool {
        self.open.len() > self.expected.len() + self.returned.len()
    }

    /// No record from this offset on was ever delivered.
    pub(super) fn first_undelivered(&self) -> i64 {
        self.first_undelivered
    }

    /// The offset to commit, before which every record is acknowledged, and its mark.
    ///
    /// The mark announces the next `ahead` offsets, which are likely to be delivered next. They count as returned,
    /// since no worker holds them, and need no further commit before they are delivered.
    pub(super) fn commit(&self, ahead: u64) -> (i64, Mark) {
        let committed = self.open.first().copied().unwrap_or(self.first_undelivered);
        let from = |offset: i64| offset.abs_diff(committed);
        let announced = from(self.first_undelivered)..from(self.first_undelivered) + ahead;
        let returned = (self.expected.len() + self.returned.len()) as u64 + ahead;
        let mut mark = Mark { delivered: announced.end, returned, open: Vec::new() };
        self.open.iter().for_each(|offset| mark.push(from(*offset)));
        announced.for_each(|offset| mark.push(offset));
        (committed, mark)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_acknowledged_without_a_gap_is_committed() {
        let mut tracker = Tracker::resume(None, None);
        (5..9).for_each(|offset| assert_eq!(tracker.arrive(offset), Arrival::New));
        tracker.acknowledge(6);
        tracker.acknowledge(8);
        let (committed, mark) = tracker.commit(0);
        assert_eq!((committed, mark), (5, Mark { delivered: 4, returned: 0, open: vec![0..=0, 2..=2] }));
        tracker.acknowledge(5);
        assert_eq!(tracker.commit(0).0, 7);
        tracker.acknowledge(7);
        assert_eq!(tracker.commit(0), (9, Mark::default()));
    }

    #[test]
    fn what_was_acknowledged_out_of_order_is_not_repeated_to_the_next_consumer() {
        let mut former = Tracker::resume(Some(0), None);
        (0..4).for_each(|offset| assert_eq!(former.arrive(offset), Arrival::New));
        former.acknowledge(1);
        former.acknowledge(2);
        let (committed, mark) = former.commit(0);
        let mut next = Tracker::resume(Some(committed), Some(&mark));
        assert_eq!(next.commit(0).1.returned, 2);
        let arrivals: Vec<_> = (0..5).map(|offset| next.arrive(offset)).collect();
        assert_eq!(
            arrivals,
            [Arrival::Redelivered, Arrival::Acknowledged, Arrival::Acknowledged, Arrival::Redelivered, Arrival::New]
        );
    }

    #[test]
    fn an_expected_record_that_has_left_the_log_does_not_hold_up_commits() {
        let mark = Mark { delivered: 3, returned: 0, open: vec![0..=2] };
        let mut tracker = Tracker::resume(Some(10), Some(&mark));
        assert_eq!(tracker.arrive(20), Arrival::New);
        tracker.acknowledge(20);
        assert_eq!(tracker.commit(0), (21, Mark::default()));
    }

    #[test]
    fn offsets_that_no_record_has_are_passed_at_the_end_of_the_log() {
        // Record 0 and the marker of its transaction; then an announced record that was aborted, and its marker.
        let mark = Mark { delivered: 2, returned: 1, open: vec![1..=1] };
        let mut tracker = Tracker::resume(Some(0), None);
        assert_eq!(tracker.arrive(0), Arrival::New);
        assert!(tracker.advance_to(2) && !tracker.advance_to(2));
        assert_eq!(tracker.commit(0).0, 0);
        tracker.acknowledge(0);
        assert_eq!(tracker.commit(0), (2, Mark::default()));
        let mut next = Tracker::resume(Some(1), Some(&mark));
        assert!(next.expects_records() && next.advance_to(4) && !next.expects_records());
        assert_eq!(next.commit(0), (4, Mark::default()));
        assert_eq!(next.arrive(4), Arrival::New);
    }

    #[test]
    fn a_log_that_was_created_again_does_not_count_as_acknowledged() {
        let mut tracker = Tracker::resume(Some(100), Some(&Mark { delivered: 5, returned: 0, open: vec![0..=0] }));
        assert_eq!(tracker.arrive(0), Arrival::New);
        assert_eq!(tracker.arrive(1), Arrival::New);
        assert_eq!(tracker.commit(0).0, 0);
    }

    /// The events in the life of a partition, in random order.
    #[derive(Debug, Clone)]
    enum Step {
        Fetch,
        Acknowledge(prop::sample::Index),
        Requeue(prop::sample::Index),
        Redeliver,
        /// The state is committed, with this number of records announced.
        Commit(u64),
        /// The partition moves to another consumer, which reads the last commit. The former consumer loses its
        /// deliveries.
        Move,
        /// The log skips an offset, as after a transaction.
        Gap,
        /// The consumer has reached the end of the log.
        ReachEnd,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Fetch),
            5 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
            2 => any::<prop::sample::Index>().prop_map(Step::Requeue),
            2 => Just(Step::Redeliver),
            3 => (0..5u64).prop_map(Step::Commit),
            1 => Just(Step::Move),
            1 => Just(Step::Gap),
            1 => Just(Step::ReachEnd),
        ];
        proptest::collection::vec(step, 0..300)
    }

    /// A log, and the states of its records.
    #[derive(Default)]
    struct Model {
        /// The offsets of its records, and where it ends.
        log: Vec<i64>,
        end: i64,
        /// The index in the log of the next record to fetch.
        next: usize,
        tracker: Tracker,
        /// The offsets that the worker holds.
        held: Vec<i64>,
        now: Past,
        committed: (i64, Mark),
        at_commit: Past,
    }

    /// The offsets that were delivered or acknowledged by some consumer.
    #[derive(Clone, Default)]
    struct Past {
        delivered: HashSet<i64>,
        acknowledged: HashSet<i64>,
    }

    impl Model {
        fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
            match step {
                Step::Gap => self.end += 1,
                Step::ReachEnd if self.next == self.log.len() => {
                    self.tracker.advance_to(self.end);
                    prop_assert!(!self.tracker.expects_records());
                }
                Step::Fetch => {
                    if self.next == self.log.len() {
                        self.log.push(self.end);
                        self.end += 1;
                    }
                    self.fetch()?;
                }
                Step::Acknowledge(index) if !self.held.is_empty() => {
                    let offset = self.held.swap_remove(index.index(self.held.len()));
                    self.now.acknowledged.insert(offset);
                    self.tracker.acknowledge(offset);
                }
                Step::Requeue(index) if !self.held.is_empty() => {
                    self.tracker.requeue(self.held.swap_remove(index.index(self.held.len())));
                }
                Step::Redeliver => {
                    if let Some(offset) = self.tracker.redeliver() {
                        prop_assert!(!self.held.contains(&offset) && !self.now.acknowledged.contains(&offset));
                        self.held.push(offset);
                    }
                }
                Step::Commit(ahead) => self.commit(ahead)?,
                Step::Move => {
                    let mark = Mark::from_text(&self.committed.1.to_text(usize::MAX));
                    self.tracker = Tracker::resume(Some(self.committed.0), mark.as_ref());
                    self.next = self.log.partition_point(|at| *at < self.committed.0);
                    self.held.clear();
                    self.now = self.at_commit.clone();
                }
                _ => {}
            }
            Ok(())
        }

        fn fetch(&mut self) -> Result<(), TestCaseError> {
            let offset = self.log[self.next];
            self.next += 1;
            match self.tracker.arrive(offset) {
                Arrival::Acknowledged => prop_assert!(self.at_commit.acknowledged.contains(&offset)),
                arrival => {
                    prop_assert!(!self.at_commit.acknowledged.contains(&offset), "{offset} was acknowledged");
                    let (committed, mark) = &self.committed;
                    let announced = offset < committed.saturating_add_unsigned(mark.delivered);
                    let is_redelivered = arrival == Arrival::Redelivered;
                    prop_assert!(is_redelivered || !self.at_commit.delivered.contains(&offset));
                    prop_assert!(!is_redelivered || announced);
                    prop_assert!(!self.held.contains(&offset));
                    self.held.push(offset);
                    self.now.delivered.insert(offset);
                }
            }
            Ok(())
        }

        fn commit(&mut self, ahead: u64) -> Result<(), TestCaseError> {
            let in_log = self.end.saturating_sub(self.tracker.first_undelivered()).max(0).unsigned_abs();
            self.committed = self.tracker.commit(ahead.min(in_log));
            let (committed, mark) = &self.committed;
            prop_assert_eq!(mark.open_count() - mark.returned, self.held.len() as u64);
            let mut before = self.log.iter().filter(|at| *at < committed);
            prop_assert!(before.all(|at| self.now.acknowledged.contains(at)));
            prop_assert_eq!(self.tracker.has_unsettled_records(), !self.held.is_empty());
            self.at_commit = self.now.clone();
            Ok(())
        }

        /// In the end every record is fetched and acknowledged, and the commit shows it.
        fn finish(mut self) -> Result<(), TestCaseError> {
            self.log.push(self.end);
            while self.next < self.log.len() {
                self.fetch()?;
            }
            while let Some(offset) = self.tracker.redeliver() {
                self.held.push(offset);
            }
            for offset in self.held {
                self.tracker.acknowledge(offset);
                self.now.acknowledged.insert(offset);
            }
            prop_assert!(self.log.iter().all(|at| self.now.acknowledged.contains(at)));
            let (offset, mark) = self.tracker.commit(0);
            prop_assert_eq!(mark.open_count(), 0);
            prop_assert!(self.log.last().is_none_or(|last| offset == last + 1));
            Ok(())
        }
    }

    proptest! {
        /// The log is the model: its records, those ever delivered, and those acknowledged, now and at the last commit.
        #[test]
        fn nothing_is_lost_and_only_what_was_open_at_a_commit_is_repeated(steps in steps()) {
            let mut model = Model::default();
            for step in steps {
                model.apply(step)?;
            }
            model.finish()?;
        }
    }
}
