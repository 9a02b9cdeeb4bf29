//! Mode `backlog`: the metric is the backlog, the target is jobs per worker.

use queue::Class;
use serde::Serialize;

use crate::reading::Reading;

/// The settings of the mode.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// Jobs of backlog per worker.
    pub per_worker: f64,
    /// Whether jobs that workers hold are left out.
    pub excludes_in_flight: bool,
    /// The classes whose waiting jobs count. Empty: all classes.
    pub classes: Vec<Class>,
}

/// The parts of the backlog, in jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct BacklogTerms {
    /// Jobs that wait in the broker.
    pub waiting: u64,
    /// Jobs that workers hold.
    pub held: u64,
    /// Jobs that wait for their retry, or to be published again.
    pub retry: u64,
}

impl BacklogTerms {
    /// The sum of the parts.
    pub fn total(&self) -> u64 {
        self.waiting.saturating_add(self.held).saturating_add(self.retry)
    }
}

impl Backlog {
    /// The parts of a reading that count. The ledger has no counts by class. So if classes are named, the waiting jobs
    /// are those of the broker, and held and retried jobs of every class count.
    pub fn terms(&self, reading: &Reading) -> BacklogTerms {
        let held = reading.in_flight.max(reading.leased);
        let waiting = if self.classes.is_empty() {
            reading.backlog().saturating_sub(held).saturating_sub(reading.retry)
        } else {
            self.classes.iter().fold(0, |sum: u64, class| sum.saturating_add(reading.waiting_of(*class)))
        };
        BacklogTerms { waiting, held: if self.excludes_in_flight { 0 } else { held }, retry: reading.retry }
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
    fn every_job_counts_unless_it_is_excluded() {
        assert_eq!(backlog().terms(&reading()), BacklogTerms { waiting: 7, held: 3, retry: 5 });
        assert_eq!(backlog().terms(&reading()).total(), reading().backlog());
        let without = Backlog { excludes_in_flight: true, ..backlog() };
        assert_eq!(without.terms(&reading()), BacklogTerms { waiting: 7, held: 0, retry: 5 });
    }

    #[test]
    fn only_waiting_jobs_of_the_named_classes_count() {
        let of = |classes: &[Class]| Backlog { classes: classes.to_vec(), ..backlog() }.terms(&reading()).waiting;
        assert_eq!(of(&[Class::Premium]), 1);
        assert_eq!(of(&[Class::Standard, Class::Batch]), 6);
    }
}
