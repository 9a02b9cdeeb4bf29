//! Mode `backlog`: the metric is the backlog, the target is jobs per worker.

use queue::Class;
use serde::Serialize;

use crate::reading::Reading;

/// What the mode is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// Jobs of backlog per worker.
    pub per_worker: f64,
    /// Jobs in workers' hands do not count.
    pub excludes_in_flight: bool,
    /// Only what waits of these classes counts; all of them unless some are named.
    pub classes: Vec<Class>,
}

/// What was counted, in jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counted {
    /// Nobody holds them.
    pub waiting: u64,
    /// In workers' hands.
    pub held: u64,
    /// They await a retry, or to be published again.
    pub retry: u64,
}

impl Counted {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.waiting.saturating_add(self.held).saturating_add(self.retry)
    }
}

impl Backlog {
    /// What of a reading counts. The ledger does not know classes: with some of them named, only the broker is asked for
    /// what waits, and what is held or awaits a retry counts whatever its class.
    pub fn counted(&self, reading: &Reading) -> Counted {
        let held = reading.in_flight.max(reading.leased);
        let waiting = if self.classes.is_empty() {
            reading.backlog().saturating_sub(held).saturating_sub(reading.retry)
        } else {
            self.classes.iter().fold(0, |sum: u64, class| sum.saturating_add(reading.waiting_of(*class)))
        };
        Counted { waiting, held: if self.excludes_in_flight { 0 } else { held }, retry: reading.retry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading { waiting: [1, 2, 4], in_flight: 3, leased: 2, retry: 5, queued: 7, ..Reading::default() }
    }

    fn backlog() -> Backlog {
        Backlog { per_worker: 1.0, excludes_in_flight: false, classes: Vec::new() }
    }

    #[test]
    fn everything_counts_unless_something_is_excluded() {
        assert_eq!(backlog().counted(&reading()), Counted { waiting: 7, held: 3, retry: 5 });
        assert_eq!(backlog().counted(&reading()).total(), reading().backlog());
        let without = Backlog { excludes_in_flight: true, ..backlog() };
        assert_eq!(without.counted(&reading()), Counted { waiting: 7, held: 0, retry: 5 });
    }

    #[test]
    fn only_what_waits_of_the_named_classes_counts() {
        let of = |classes: &[Class]| Backlog { classes: classes.to_vec(), ..backlog() }.counted(&reading()).waiting;
        assert_eq!(of(&[Class::Premium]), 1);
        assert_eq!(of(&[Class::Standard, Class::Batch]), 6);
    }
}
