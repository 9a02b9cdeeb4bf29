//! The metadata of a committed offset. The next consumer of the partition and the gauge read it.
//!
//! Kafka keeps one offset per partition and group: every record before it is acknowledged. Of the records after it,
//! some are acknowledged too, a worker holds some, and the rest was never delivered. Kafka stores a short text with
//! each committed offset. This text is a mark, which describes the records after the offset:
//!
//! ```text
//! 1;DELIVERED;RETURNED;OPEN      e.g.  1;40;2;0-3,9
//! ```
//!
//! - `DELIVERED` is the number of records after the committed offset that were delivered.
//! - `OPEN` are the ranges of those that are not acknowledged.
//! - `RETURNED` is the number of open records that no worker holds.
//!
//! Offsets are relative to the committed one. The record at this offset is itself open, unless no record is open.
//!
//! Under load the next batch is announced before it is delivered: the mark counts it as delivered, open and returned. A
//! text that cannot be parsed is ignored; an offset that was set with Kafka's own tools has none, for example. All
//! records after the offset are then new.

use std::ops::RangeInclusive;

const VERSION: &str = "1";

/// The largest size of a mark. A server accepts 4096 bytes by default (`offset.metadata.max.bytes`).
pub(super) const MAX_BYTES: usize = 2_000;

/// The most bytes of a range: a comma, and two numbers of 20 digits with a hyphen.
const LONGEST_RANGE: usize = 2 + 2 * 20;

/// The records of a partition that were delivered, and those of them that are open. Offsets count from the committed
/// one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of records that were delivered.
    pub(super) delivered: u64,
    /// The number of open records that no worker holds.
    pub(super) returned: u64,
    /// The delivered records that are not acknowledged, in order.
    pub(super) open: Vec<RangeInclusive<u64>>,
}

impl Mark {
    /// The number of open records.
    pub(super) fn open_count(&self) -> u64 {
        self.open.iter().map(|run| run.end() - run.start() + 1).sum()
    }

    /// Adds an open offset, which is above all others.
    pub(super) fn push(&mut self, offset: u64) {
        match self.open.last_mut() {
            Some(last) if *last.end() + 1 == offset => *last = *last.start()..=offset,
            _ => self.open.push(offset..=offset),
        }
    }

    /// The text, of at most `max_bytes`. If not all ranges fit, the last range reaches to the end. Acknowledged records
    /// in it may then be delivered again, but no record is lost.
    pub(super) fn to_text(&self, max_bytes: usize) -> String {
        let mut text = format!("{VERSION};{};{};", self.delivered, self.returned);
        let to_end = |first: u64| format!("{first}-{}", self.delivered.saturating_sub(1).max(first));
        for (index, run) in self.open.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let written = if run.start() == run.end() {
                run.start().to_string()
            } else {
                format!("{}-{}", run.start(), run.end())
            };
            let closing = to_end(*run.start());
            let is_last = index + 1 == self.open.len();
            let room = if is_last { written.len() } else { written.len() + LONGEST_RANGE };
            if text.len() + separator.len() + room > max_bytes {
                text.push_str(separator);
                text.push_str(&closing);
                break;
            }
            text.push_str(separator);
            text.push_str(&written);
        }
        if text.len() > max_bytes { String::new() } else { text }
    }

    /// Parses the text. `None`: [`Mark::to_text`] did not write it.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        if parts.next()? != VERSION {
            return None;
        }
        let delivered: u64 = parts.next()?.parse().ok()?;
        let returned = parts.next()?.parse().ok()?;
        let mut open: Vec<RangeInclusive<u64>> = Vec::new();
        for run in parts.next()?.split(',').filter(|run| !run.is_empty()) {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            let follows = open.last().is_none_or(|before| *before.end() < first);
            if !follows || last < first || last >= delivered {
                return None;
            }
            open.push(first..=last);
        }
        let mark = Self { delivered, returned, open };
        (parts.next().is_none() && mark.returned <= mark.open_count()).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marks() -> impl Strategy<Value = Mark> {
        (proptest::collection::btree_set(0..5_000u64, 0..1_500), 0..100u64).prop_map(|(open, beyond)| {
            let mut mark = Mark { delivered: open.last().map_or(0, |last| last + 1) + beyond, ..Mark::default() };
            open.into_iter().for_each(|offset| mark.push(offset));
            mark.returned = mark.open_count() / 2;
            mark
        })
    }

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written(mark in marks()) {
            prop_assert_eq!(Mark::from_text(&mark.to_text(usize::MAX)), Some(mark));
        }

        /// A range that is missing would count as acknowledged.
        #[test]
        fn a_mark_cut_short_still_names_everything_open(mark in marks(), max_bytes in 60..MAX_BYTES) {
            let text = mark.to_text(max_bytes);
            prop_assert!(text.len() <= max_bytes);
            let read = Mark::from_text(&text).unwrap();
            prop_assert_eq!(read.delivered, mark.delivered);
            for run in &mark.open {
                prop_assert!(run.clone().all(|offset| read.open.iter().any(|found| found.contains(&offset))));
            }
        }

        #[test]
        fn any_text_is_parsed_or_ignored(text in "[0-9;,x-]{0,40}") {
            if let Some(mark) = Mark::from_text(&text) {
                prop_assert!(mark.returned <= mark.open_count() && mark.open_count() <= mark.delivered);
            }
        }
    }

    #[test]
    fn a_mark_cut_short_has_room_for_the_largest_offsets() {
        let open = "1-1000000000000000000,10000000000000000000-10000000000000000001,10000000000000000003";
        let mark = Mark::from_text(&format!("1;18446744073709551615;10000000000000;{open}")).unwrap();
        for max_bytes in 85..150 {
            let text = mark.to_text(max_bytes);
            assert!(text.len() <= max_bytes && Mark::from_text(&text).is_some(), "{max_bytes}: {text:?}");
        }
    }

    #[test]
    fn a_text_of_another_program_is_ignored() {
        for text in ["", "host-7", "2;1;0;0", "1;1", "1;1;0;5", "1;9;0;3-2", "1;9;0;3,3", "1;2;9;0"] {
            assert_eq!(Mark::from_text(text), None, "{text}");
        }
    }
}
