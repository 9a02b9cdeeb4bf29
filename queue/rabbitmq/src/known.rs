//! Which queues are there, as far as former readings found out.

use std::collections::{HashMap, HashSet};

use lapin::types::ShortString;

/// How many of the queues that were not there are looked for again in one reading. Each such question costs a channel,
/// and the server logs it as an error.
const LOOKED_FOR: usize = 128;

#[derive(Default)]
pub(super) struct Known {
    there: HashSet<ShortString>,
    /// Those that were not there, and in which reading that was found last.
    missing: HashMap<ShortString, u64>,
    readings: u64,
}

/// What a reading asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// They were there.
    pub(super) there: Vec<ShortString>,
    /// Never asked for, or to be looked for again.
    pub(super) unknown: Vec<ShortString>,
    /// Taken to be still not there.
    pub(super) missing: Vec<ShortString>,
}

impl Known {
    /// Plans the next reading. Those that were not there are looked for in turn.
    pub(super) fn plan(&mut self, names: HashSet<ShortString>) -> Plan {
        self.readings += 1;
        let (there, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| self.there.contains(name));
        let (mut missing, mut unknown): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|name| self.missing.contains_key(name));
        missing.sort_by_key(|name| self.missing.get(name).copied());
        unknown.extend(missing.drain(..missing.len().min(LOOKED_FOR)));
        Plan { there, unknown, missing }
    }

    pub(super) fn is_there(&mut self, name: &ShortString) {
        self.missing.remove(name);
        self.there.insert(name.clone());
    }

    pub(super) fn is_missing(&mut self, name: &ShortString) {
        self.there.remove(name);
        self.missing.insert(name.clone(), self.readings);
    }

    /// Nothing is known of it: it is asked for in the next reading, whatever else is.
    pub(super) fn forget(&mut self, name: &ShortString) {
        self.there.remove(name);
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
    fn a_queue_is_asked_for_unless_many_were_missing_and_then_in_turn() {
        let mut known = Known::default();
        let all = names(0..2 * LOOKED_FOR + 10);
        let Plan { there, unknown, missing } = known.plan(all.clone());
        assert_eq!((there.len(), unknown.len(), missing.len()), (0, all.len(), 0));
        let (found, lost) = unknown.split_at(10);
        found.iter().for_each(|name| known.is_there(name));
        lost.iter().for_each(|name| known.is_missing(name));

        let mut looked_for = HashSet::new();
        for _ in 0..2 {
            let Plan { there, unknown, missing } = known.plan(all.clone());
            assert_eq!((there.len(), unknown.len(), missing.len()), (10, LOOKED_FOR, LOOKED_FOR));
            unknown.iter().for_each(|name| known.is_missing(name));
            looked_for.extend(unknown);
        }
        assert_eq!(looked_for, lost.iter().cloned().collect());
    }

    #[test]
    fn a_queue_that_is_found_or_refused_is_asked_for_in_every_reading() {
        let mut known = Known::default();
        let all: Vec<_> = names(0..2).into_iter().collect();
        all.iter().for_each(|name| known.is_missing(name));
        known.is_there(&all[0]);
        known.forget(&all[1]);
        let plan = known.plan(all.iter().cloned().collect());
        assert_eq!(plan, Plan { there: vec![all[0].clone()], unknown: vec![all[1].clone()], missing: Vec::new() });
    }
}
