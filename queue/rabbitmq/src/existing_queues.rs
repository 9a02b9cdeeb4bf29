//! Which queues exist, according to earlier readings.

use std::collections::{HashMap, HashSet};

use lapin::types::ShortString;

/// The number of missing queues that one reading checks again. Each such check costs a channel, and the server logs it
/// as an error.
const MAX_CHECKS: usize = 128;

#[derive(Default)]
pub(super) struct ExistingQueues {
    existing: HashSet<ShortString>,
    /// The queues that did not exist, with the number of the last reading that checked this.
    missing: HashMap<ShortString, u64>,
    readings: u64,
}

/// The queues that a reading counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReadingPlan {
    /// They existed at the last reading.
    pub(super) existing: Vec<ShortString>,
    /// They were never checked, or must be checked again.
    pub(super) unchecked: Vec<ShortString>,
    /// The reading assumes that they are still missing.
    pub(super) missing: Vec<ShortString>,
}

impl ExistingQueues {
    /// Plans the next reading. Missing queues are checked again in turn.
    pub(super) fn plan(&mut self, names: HashSet<ShortString>) -> ReadingPlan {
        self.readings += 1;
        let (existing, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| self.existing.contains(name));
        let (mut missing, mut unchecked): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|name| self.missing.contains_key(name));
        missing.sort_by_key(|name| self.missing.get(name).copied());
        unchecked.extend(missing.drain(..missing.len().min(MAX_CHECKS)));
        ReadingPlan { existing, unchecked, missing }
    }

    pub(super) fn set_existing(&mut self, name: &ShortString) {
        self.missing.remove(name);
        self.existing.insert(name.clone());
    }

    pub(super) fn set_missing(&mut self, name: &ShortString) {
        self.existing.remove(name);
        self.missing.insert(name.clone(), self.readings);
    }

    /// It is unknown whether the queue exists. Every reading checks this until one has an answer.
    pub(super) fn forget(&mut self, name: &ShortString) {
        self.existing.remove(name);
        self.missing.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(range: std::ops::Range<usize>) -> HashSet<ShortString> {
        range.map(|number| ShortString::from(format!("queue-{number}"))).collect()
    }

    #[test]
    fn a_queue_is_checked_in_every_reading_unless_many_are_missing_and_then_in_turn() {
        let mut queues = ExistingQueues::default();
        let all = names(0..2 * MAX_CHECKS + 10);
        let ReadingPlan { existing, unchecked, missing } = queues.plan(all.clone());
        assert_eq!((existing.len(), unchecked.len(), missing.len()), (0, all.len(), 0));
        let (found, lost) = unchecked.split_at(10);
        found.iter().for_each(|name| queues.set_existing(name));
        lost.iter().for_each(|name| queues.set_missing(name));

        let mut checked = HashSet::new();
        for _ in 0..2 {
            let ReadingPlan { existing, unchecked, missing } = queues.plan(all.clone());
            assert_eq!((existing.len(), unchecked.len(), missing.len()), (10, MAX_CHECKS, MAX_CHECKS));
            unchecked.iter().for_each(|name| queues.set_missing(name));
            checked.extend(unchecked);
        }
        assert_eq!(checked, lost.iter().cloned().collect());
    }

    #[test]
    fn a_queue_that_is_found_or_refused_is_checked_in_every_reading() {
        let mut queues = ExistingQueues::default();
        let all: Vec<_> = names(0..2).into_iter().collect();
        all.iter().for_each(|name| queues.set_missing(name));
        queues.set_existing(&all[0]);
        queues.forget(&all[1]);
        let plan = queues.plan(all.iter().cloned().collect());
        assert_eq!(
            plan,
            ReadingPlan { existing: vec![all[0].clone()], unchecked: vec![all[1].clone()], missing: Vec::new() }
        );
    }
}
