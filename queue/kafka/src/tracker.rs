//! What of one partition has been handed out, and what may be committed.
//!
//! Pure: it knows offsets, and nothing of Kafka. Deliveries are settled in any order; what is committed is the offset
//! before which everything is done, and beside it the [`Mark`] of what is open beyond.

use std::collections::BTreeSet;

use super::mark::Mark;

/// Follows one partition for as long as it is assigned.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Handed out, by us or by who had the partition before, and not done.
    open: BTreeSet<i64>,
    /// Those of them that a former holder had and that have not come to us yet.
    expected: BTreeSet<i64>,
    /// Those of them that are given back, and that we can hand out again at once.
    back: BTreeSet<i64>,
    /// Everything from here on was never handed out.
    handed_out: i64,
    /// The next record to come has at least this offset.
    position: i64,
}

/// What a record that has come is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nobody has had it.
    First,
    /// Somebody may have had it.
    Again,
    /// It was done already.
    Done,
}

impl Tracker {
    /// Of a partition whose committed offset and mark are these.
    pub(super) fn resume(committed: Option<i64>, mark: Option<&Mark>) -> Self {
        let base = committed.unwrap_or(0);
        let mut tracker = Self { handed_out: base, position: base, ..Self::default() };
        if let Some(mark) = mark {
            tracker.handed_out = base.saturating_add_unsigned(mark.handed_out);
            for run in &mark.open {
                tracker.expected.extend(run.clone().map(|offset| base.saturating_add_unsigned(offset)));
            }
            tracker.open.clone_from(&tracker.expected);
        }
        tracker
    }

    /// Whether a record of this offset can only be of a log that has begun anew.
    pub(super) fn begins_anew_with(&self, offset: i64) -> bool {
        offset < self.position
    }

    /// A record has come, and is handed out unless it is done. Records come in order; offsets may be missing.
    pub(super) fn arrive(&mut self, offset: i64) -> Arrival {
        if self.begins_anew_with(offset) {
            // The log has begun anew: nothing that we know of it holds.
            *self = Self { handed_out: offset, ..Self::default() };
        }
        self.nothing_comes_before(offset);
        self.position = offset + 1;
        if offset >= self.handed_out {
            self.handed_out = offset + 1;
            self.open.insert(offset);
            return Arrival::First;
        }
        if self.expected.remove(&offset) { Arrival::Again } else { Arrival::Done }
    }

    /// Everything before `position` has come or never will: markers of transactions take offsets too, and so do records
    /// that were aborted. Whether that is news.
    pub(super) fn reach(&mut self, position: i64) -> bool {
        if position <= self.position {
            return false;
        }
        self.nothing_comes_before(position);
        self.position = position;
        self.handed_out = self.handed_out.max(position);
        true
    }

    /// What was expected before this is no longer in the log: waiting for it would hold up the commits for ever.
    fn nothing_comes_before(&mut self, offset: i64) {
        while let Some(gone) = self.expected.first().copied().filter(|expected| *expected < offset) {
            self.expected.remove(&gone);
            self.open.remove(&gone);
        }
    }

    /// Whether a former holder had some that have not come to us.
    pub(super) fn is_expecting(&self) -> bool {
        !self.expected.is_empty()
    }

    /// The lowest of what was given back is handed out again.
    pub(super) fn hand_out_again(&mut self) -> Option<i64> {
        self.back.pop_first()
    }

    /// A delivery is done.
    pub(super) fn done(&mut self, offset: i64) {
        self.open.remove(&offset);
    }

    /// A delivery is given back.
    pub(super) fn give_back(&mut self, offset: i64) {
        if self.open.contains(&offset) {
            self.back.insert(offset);
        }
    }

    /// Whether any of it is in our worker's hands.
    pub(super) fn is_held(&self) -> bool {
        self.open.len() > self.expected.len() + self.back.len()
    }

    /// Everything from here on was never handed out.
    pub(super) fn handed_out(&self) -> i64 {
        self.handed_out
    }

    /// Everything before this is done: what to commit, and the mark beside it.
    ///
    /// The mark announces `ahead` offsets that are likely to be handed out next. They count as given back, since nobody
    /// has them, and need no further commit before they are handed out.
    pub(super) fn commit(&self, ahead: u64) -> (i64, Mark) {
        let committed = self.open.first().copied().unwrap_or(self.handed_out);
        let from = |offset: i64| offset.abs_diff(committed);
        let announced = from(self.handed_out)..from(self.handed_out) + ahead;
        let back = (self.expected.len() + self.back.len()) as u64 + ahead;
        let mut mark = Mark { handed_out: announced.end, back, open: Vec::new() };
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
    fn only_what_is_done_without_a_gap_is_committed() {
        let mut tracker = Tracker::resume(None, None);
        (5..9).for_each(|offset| assert_eq!(tracker.arrive(offset), Arrival::First));
        tracker.done(6);
        tracker.done(8);
        let (committed, mark) = tracker.commit(0);
        assert_eq!((committed, mark), (5, Mark { handed_out: 4, back: 0, open: vec![0..=0, 2..=2] }));
        tracker.done(5);
        assert_eq!(tracker.commit(0).0, 7);
        tracker.done(7);
        assert_eq!(tracker.commit(0), (9, Mark::default()));
    }

    #[test]
    fn what_was_done_out_of_order_is_not_repeated_to_the_next_holder() {
        let mut former = Tracker::resume(Some(0), None);
        (0..4).for_each(|offset| assert_eq!(former.arrive(offset), Arrival::First));
        former.done(1);
        former.done(2);
        let (committed, mark) = former.commit(0);
        let mut next = Tracker::resume(Some(committed), Some(&mark));
        assert_eq!(next.commit(0).1.back, 2);
        let arrivals: Vec<_> = (0..5).map(|offset| next.arrive(offset)).collect();
        assert_eq!(arrivals, [Arrival::Again, Arrival::Done, Arrival::Done, Arrival::Again, Arrival::First]);
    }

    #[test]
    fn an_expected_record_that_is_gone_from_the_log_holds_up_nothing() {
        let mark = Mark { handed_out: 3, back: 0, open: vec![0..=2] };
        let mut tracker = Tracker::resume(Some(10), Some(&mark));
        assert_eq!(tracker.arrive(20), Arrival::First);
        tracker.done(20);
        assert_eq!(tracker.commit(0), (21, Mark::default()));
    }

    #[test]
    fn offsets_that_no_record_has_are_passed_at_the_end_of_the_log() {
        // A record, and the marker behind it; then an announced one that was aborted, and the marker behind that.
        let mark = Mark { handed_out: 2, back: 1, open: vec![1..=1] };
        let mut tracker = Tracker::resume(Some(0), None);
        assert_eq!(tracker.arrive(0), Arrival::First);
        assert!(tracker.reach(2) && !tracker.reach(2));
        assert_eq!(tracker.commit(0).0, 0);
        tracker.done(0);
        assert_eq!(tracker.commit(0), (2, Mark::default()));
        let mut next = Tracker::resume(Some(1), Some(&mark));
        assert!(next.is_expecting() && next.reach(4) && !next.is_expecting());
        assert_eq!(next.commit(0), (4, Mark::default()));
        assert_eq!(next.arrive(4), Arrival::First);
    }

    #[test]
    fn a_log_that_begins_anew_is_not_taken_for_done() {
        let mut tracker = Tracker::resume(Some(100), Some(&Mark { handed_out: 5, back: 0, open: vec![0..=0] }));
        assert_eq!(tracker.arrive(0), Arrival::First);
        assert_eq!(tracker.arrive(1), Arrival::First);
        assert_eq!(tracker.commit(0).0, 0);
    }

    /// What may happen to a partition, by turns.
    #[derive(Debug, Clone)]
    enum Step {
        Take,
        Done(prop::sample::Index),
        GiveBack(prop::sample::Index),
        TakeAgain,
        /// Its state is committed, with so many announced.
        Commit(u64),
        /// It goes to another consumer, which knows the last commit; what was held is lost to the former one.
        Move,
        /// The log skips an offset, as after a transaction.
        Gap,
        /// The consumer has come to the end of the log.
        Reach,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Take),
            5 => any::<prop::sample::Index>().prop_map(Step::Done),
            2 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
            2 => Just(Step::TakeAgain),
            3 => (0..5u64).prop_map(Step::Commit),
            1 => Just(Step::Move),
            1 => Just(Step::Gap),
            1 => Just(Step::Reach),
        ];
        proptest::collection::vec(step, 0..300)
    }

    proptest! {
        /// The log is the model: what is in it, what was ever handed out, and what was done, also as committed.
        #[test]
        fn nothing_is_lost_and_only_what_was_open_at_a_commit_is_repeated(steps in steps()) {
            let (mut log, mut end) = (Vec::<i64>::new(), 0);
            let (mut held, mut done, mut seen) = (Vec::<i64>::new(), HashSet::new(), HashSet::new());
            let mut committed = (0i64, Mark::default());
            let (mut durably_done, mut durably_seen) = (HashSet::new(), HashSet::new());
            let mut tracker = Tracker::resume(None, None);
            let mut position = 0;
            for step in steps {
                match step {
                    Step::Gap => end += 1,
                    Step::Reach if position == log.len() => {
                        tracker.reach(end);
                        prop_assert!(!tracker.is_expecting());
                    }
                    Step::Take => {
                        if position == log.len() {
                            log.push(end);
                            end += 1;
                        }
                        let offset = log[position];
                        position += 1;
                        match tracker.arrive(offset) {
                            Arrival::Done => prop_assert!(durably_done.contains(&offset)),
                            arrival => {
                                prop_assert!(!durably_done.contains(&offset), "{offset} was done");
                                let announced = offset < committed.0.saturating_add_unsigned(committed.1.handed_out);
                                prop_assert!(arrival == Arrival::Again || !durably_seen.contains(&offset));
                                prop_assert!(arrival == Arrival::First || announced);
                                prop_assert!(!held.contains(&offset));
                                held.push(offset);
                                seen.insert(offset);
                            }
                        }
                    }
                    Step::Done(index) if !held.is_empty() => {
                        let offset = held.swap_remove(index.index(held.len()));
                        done.insert(offset);
                        tracker.done(offset);
                    }
                    Step::GiveBack(index) if !held.is_empty() => {
                        tracker.give_back(held.swap_remove(index.index(held.len())));
                    }
                    Step::TakeAgain => {
                        if let Some(offset) = tracker.hand_out_again() {
                            prop_assert!(!held.contains(&offset) && !done.contains(&offset));
                            held.push(offset);
                        }
                    }
                    Step::Commit(ahead) => {
                        let in_log = end.saturating_sub(tracker.handed_out()).max(0).unsigned_abs();
                        committed = tracker.commit(ahead.min(in_log));
                        let open = committed.1.open_count() - committed.1.back;
                        prop_assert_eq!(open, held.len() as u64);
                        prop_assert!(log.iter().filter(|at| **at < committed.0).all(|at| done.contains(at)));
                        prop_assert_eq!(tracker.is_held(), !held.is_empty());
                        (durably_done, durably_seen) = (done.clone(), seen.clone());
                    }
                    Step::Move => {
                        let mark = Mark::from_text(&committed.1.to_text(usize::MAX));
                        tracker = Tracker::resume(Some(committed.0), mark.as_ref());
                        position = log.partition_point(|at| *at < committed.0);
                        held.clear();
                        (done, seen) = (durably_done.clone(), durably_seen.clone());
                    }
                    _ => {}
                }
            }
            // In the end everything comes and is done, and the commit says so.
            log.push(end);
            while position < log.len() {
                if tracker.arrive(log[position]) != Arrival::Done {
                    held.push(log[position]);
                }
                position += 1;
            }
            while let Some(offset) = tracker.hand_out_again() {
                held.push(offset);
            }
            for offset in held {
                tracker.done(offset);
                done.insert(offset);
            }
            prop_assert!(log.iter().all(|at| done.contains(at)));
            let (offset, mark) = tracker.commit(0);
            prop_assert_eq!(mark.open_count(), 0);
            prop_assert!(log.last().is_none_or(|last| offset == last + 1));
        }
    }
}
