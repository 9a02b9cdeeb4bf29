//! What a consumer leaves beside a committed offset, for whoever has the partition after it and for the gauge.
//!
//! Kafka keeps one number per partition: everything before it is done. Beyond it some records are done too, some are in
//! a worker's hands, and the rest was never handed out. The text that Kafka lets one commit with the number tells which:
//!
//! ```text
//! 1;HANDED_OUT;BACK;OPEN      e.g.  1;40;2;0-3,9
//! ```
//!
//! `HANDED_OUT` records after the committed offset have been handed out; those in the ranges `OPEN` are not done; `BACK`
//! of the open ones are in nobody's hands. All are counted from the committed offset, which itself is open unless
//! nothing is. Under load the next batch is announced before it is handed out: as handed out, open and back. A text
//! that cannot be read (an offset set with Kafka's own tools has none) says nothing of what is beyond: it comes as if
//! for the first time.

use std::ops::RangeInclusive;

const VERSION: &str = "1";

/// A server takes 4096 bytes unless told otherwise (`offset.metadata.max.bytes`).
pub(super) const MAX_BYTES: usize = 2_000;

/// How far a partition was handed out, and what of that is not done. Offsets count from the committed one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// So many were handed out.
    pub(super) handed_out: u64,
    /// So many of those that are open are in nobody's hands.
    pub(super) back: u64,
    /// Those that are not done, in order.
    pub(super) open: Vec<RangeInclusive<u64>>,
}

impl Mark {
    /// Not done.
    pub(super) fn open_count(&self) -> u64 {
        self.open.iter().map(|run| run.end() - run.start() + 1).sum()
    }

    /// Adds an open offset behind those that are there.
    pub(super) fn push(&mut self, offset: u64) {
        match self.open.last_mut() {
            Some(last) if *last.end() + 1 == offset => *last = *last.start()..=offset,
            _ => self.open.push(offset..=offset),
        }
    }

    /// The text, of at most `max_bytes`. Where there is no room for every range the last one reaches to the end: what is
    /// done there may come again, and nothing is lost.
    pub(super) fn to_text(&self, max_bytes: usize) -> String {
        let mut text = format!("{VERSION};{};{};", self.handed_out, self.back);
        let to_end = |first: u64| format!("{first}-{}", self.handed_out.saturating_sub(1).max(first));
        for (index, run) in self.open.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let written = if run.start() == run.end() {
                run.start().to_string()
            } else {
                format!("{}-{}", run.start(), run.end())
            };
            let closing = to_end(*run.start());
            let is_last = index + 1 == self.open.len();
            let room = if is_last { written.len() } else { written.len() + 1 + 2 * 20 };
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

    /// What the text says; `None` for what was not written here.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        if parts.next()? != VERSION {
            return None;
        }
        let handed_out: u64 = parts.next()?.parse().ok()?;
        let back = parts.next()?.parse().ok()?;
        let mut open: Vec<RangeInclusive<u64>> = Vec::new();
        for run in parts.next()?.split(',').filter(|run| !run.is_empty()) {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            let follows = open.last().is_none_or(|before| *before.end() < first);
            if !follows || last < first || last >= handed_out {
                return None;
            }
            open.push(first..=last);
        }
        let mark = Self { handed_out, back, open };
        (parts.next().is_none() && mark.back <= mark.open_count()).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marks() -> impl Strategy<Value = Mark> {
        (proptest::collection::btree_set(0..5_000u64, 0..1_500), 0..100u64).prop_map(|(open, beyond)| {
            let mut mark = Mark { handed_out: open.last().map_or(0, |last| last + 1) + beyond, ..Mark::default() };
            open.into_iter().for_each(|offset| mark.push(offset));
            mark.back = mark.open_count() / 2;
            mark
        })
    }

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written(mark in marks()) {
            prop_assert_eq!(Mark::from_text(&mark.to_text(usize::MAX)), Some(mark));
        }

        /// Else what is not done would be taken for done.
        #[test]
        fn a_mark_cut_short_still_names_everything_open(mark in marks(), max_bytes in 60..MAX_BYTES) {
            let text = mark.to_text(max_bytes);
            prop_assert!(text.len() <= max_bytes);
            let read = Mark::from_text(&text).unwrap();
            prop_assert_eq!(read.handed_out, mark.handed_out);
            for run in &mark.open {
                prop_assert!(run.clone().all(|offset| read.open.iter().any(|known| known.contains(&offset))));
            }
        }

        #[test]
        fn any_text_is_read_or_passed_over(text in "[0-9;,x-]{0,40}") {
            if let Some(mark) = Mark::from_text(&text) {
                prop_assert!(mark.back <= mark.open_count() && mark.open_count() <= mark.handed_out);
            }
        }
    }

    #[test]
    fn a_foreign_text_says_nothing() {
        for text in ["", "host-7", "2;1;0;0", "1;1", "1;1;0;5", "1;9;0;3-2", "1;9;0;3,3", "1;2;9;0"] {
            assert_eq!(Mark::from_text(text), None, "{text}");
        }
    }
}
