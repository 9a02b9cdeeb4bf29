//! From a reading to what KEDA is told. Pure arithmetic.
//!
//! One mode, `backlog`: the metric is the backlog, the target is jobs per worker.

use crate::Reading;

/// What is said of a pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// The metric: finite, at least 0.
    pub value: f64,
    /// Whether there is a reason to have a worker at all.
    pub active: bool,
}

/// What a reading says, where a backlog above `activation` is a reason to start the first worker.
///
/// A lease is a reason to stay whatever the activation, since its worker must not be stopped; so is a worker that
/// loads, since it was asked for and would be asked for again.
pub fn demand(reading: &Reading, activation: f64) -> Demand {
    let value = reading.backlog() as f64;
    Demand { value, active: value > activation || reading.leased > 0 || reading.loading > 0 }
}

/// A target for clients that know integers only (KEDA up to 2.16): rounded up, since a smaller one asks for more workers
/// than there is work for, and never 0, by which they would divide.
pub fn whole_target(target: f64) -> i64 {
    (target.ceil() as i64).max(1)
}

/// A value for clients that know integers only: rounded up, so that it is 0 only when there is nothing.
pub fn whole_value(value: f64) -> i64 {
    value.ceil() as i64
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn idle() -> Reading {
        Reading {
            taken_at: Instant::now(),
            waiting: 0,
            in_flight: 0,
            queued: 0,
            leased: 0,
            retry: 0,
            workers: 0,
            loading: 0,
        }
    }

    /// C10, C11.
    #[test]
    fn a_pool_is_active_with_a_backlog_above_its_activation_or_a_lease_or_a_worker_that_loads() {
        assert_eq!(demand(&idle(), 0.0), Demand { value: 0.0, active: false });
        assert!(demand(&Reading { waiting: 1, ..idle() }, 0.0).active);
        assert!(demand(&Reading { retry: 1, ..idle() }, 0.0).active);
        assert!(!demand(&Reading { waiting: 5, ..idle() }, 5.0).active);
        assert!(demand(&Reading { waiting: 6, ..idle() }, 5.0).active);
        assert!(demand(&Reading { leased: 1, ..idle() }, 5.0).active);
        assert!(demand(&Reading { loading: 1, workers: 1, ..idle() }, 5.0).active);
        assert!(!demand(&Reading { workers: 1, ..idle() }, 0.0).active);
    }

    /// C4, C5.
    #[test]
    fn integers_are_rounded_up() {
        assert_eq!([0.001, 1.0, 1.2, 10.0].map(whole_target), [1, 1, 2, 10]);
        assert_eq!([0.0, 0.001, 1.0, 1.2].map(whole_value), [0, 1, 1, 2]);
    }

    /// C5.
    #[test]
    fn the_largest_numbers_there_are_make_a_finite_value() {
        let most = Reading { waiting: u64::MAX, in_flight: u64::MAX, leased: u64::MAX, retry: u64::MAX, ..idle() };
        let demand = demand(&most, 0.0);
        assert!(demand.value.is_finite() && whole_value(demand.value) > 0);
    }
}
