//! Arrivals over time, generated from a seed or read from a file.

use std::time::Duration;

use queue::Class;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp, Pareto};

/// The maximum length of a trace: a year.
pub const MAX_LENGTH: Duration = Duration::from_secs(366 * 24 * 3600);

/// The maximum number of jobs in a trace. More do not fit into the memory of a small machine.
pub const MAX_JOBS: usize = 20_000_000;

/// Arrivals, the earliest one first.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The jobs.
    pub jobs: Vec<Arrival>,
    /// The length of the trace. No job arrives later.
    pub length: Duration,
}

/// One job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// The time of the submission.
    pub at: Duration,
    /// The amount of work, in items of a batch.
    pub work: f64,
    /// The class, which orders the waiting jobs.
    pub class: Class,
}

/// A pattern of arrivals. Rates are in jobs per second.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// Independent arrivals at a constant rate.
    Poisson {
        /// The rate.
        rate: f64,
    },
    /// Independent arrivals at a rate that varies like a day: `mean × (1 + swing × sin)`, starting at the lowest rate.
    Diurnal {
        /// The mean rate.
        mean: f64,
        /// The amplitude, as a share of the mean, at most 1.
        swing: f64,
        /// The length of a day.
        period: Duration,
    },
    /// No arrivals, except for an interval with a high rate.
    Burst {
        /// The high rate.
        rate: f64,
        /// The beginning of the interval.
        from: Duration,
        /// The end of the interval.
        until: Duration,
    },
    /// Phases with a constant rate and phases without arrivals, with random lengths.
    OnOff {
        /// The rate in a phase with arrivals.
        rate: f64,
        /// The mean length of a phase with arrivals.
        on: Duration,
        /// The mean length of a phase without arrivals.
        off: Duration,
    },
    /// Groups of jobs that arrive independently. Their sizes have a heavy tail (Pareto): a few groups are most of the
    /// work.
    HeavyTailed {
        /// Groups per second.
        groups: f64,
        /// The size of the smallest group.
        smallest: f64,
        /// The exponent of the tail, above 1. Near 1 the largest groups are most of the work.
        shape: f64,
        /// The size of the largest group.
        largest: f64,
        /// The rate within a group.
        rate: f64,
    },
}

impl Trace {
    /// The mean amount of work of a job, in items. 1 without jobs.
    pub fn mean_work(&self) -> f64 {
        let work: f64 = self.jobs.iter().map(|job| job.work).sum();
        if self.jobs.is_empty() { 1.0 } else { work / self.jobs.len() as f64 }
    }
}

impl Pattern {
    /// Generates a trace. The same seed gives the same trace.
    pub fn trace(&self, length: Duration, seed: u64) -> Trace {
        let mut random = StdRng::seed_from_u64(seed);
        let end = length.as_secs_f64();
        let mut times = Vec::new();
        match *self {
            Self::Poisson { rate } => independent(&mut random, rate, 0.0, end, &mut times),
            Self::Diurnal { mean, swing, period } => {
                let mut candidates = Vec::new();
                independent(&mut random, mean * (1.0 + swing), 0.0, end, &mut candidates);
                let share = |at: f64| {
                    let phase = std::f64::consts::TAU * at / period.as_secs_f64();
                    (1.0 - swing * phase.cos()) / (1.0 + swing)
                };
                times.extend(candidates.into_iter().filter(|at| random.random::<f64>() < share(*at)));
            }
            Self::Burst { rate, from, until } => {
                independent(&mut random, rate, from.as_secs_f64(), until.as_secs_f64().min(end), &mut times);
            }
            Self::OnOff { rate, on, off } => {
                let mut at = 0.0;
                while at < end {
                    at += time_to_next(&mut random, 1.0 / off.as_secs_f64());
                    let until = at + time_to_next(&mut random, 1.0 / on.as_secs_f64());
                    independent(&mut random, rate, at, until.min(end), &mut times);
                    at = until;
                }
            }
            Self::HeavyTailed { groups, smallest, shape, largest, rate } => {
                let mut starts = Vec::new();
                independent(&mut random, groups, 0.0, end, &mut starts);
                for start in starts {
                    // A scenario accepts only valid parameters. With others every group is one job.
                    let size = Pareto::new(smallest, shape).map_or(1.0, |sizes| sizes.sample(&mut random));
                    let mut at = start;
                    for _ in 0..size.min(largest) as u64 {
                        times.push(at);
                        at += time_to_next(&mut random, rate);
                    }
                }
                times.retain(|at| *at < end);
                times.sort_by(f64::total_cmp);
            }
        }
        let job = |at: f64| Arrival { at: Duration::from_secs_f64(at), work: 1.0, class: Class::Standard };
        Trace { jobs: times.into_iter().map(job).collect(), length }
    }
}

/// Adds independent arrivals at a constant rate.
fn independent(random: &mut StdRng, rate: f64, from: f64, until: f64, times: &mut Vec<f64>) {
    let mut at = from + time_to_next(random, rate);
    while at < until {
        times.push(at);
        at += time_to_next(random, rate);
    }
}

/// The random time until the next event, for independent events.
fn time_to_next(random: &mut StdRng, rate: f64) -> f64 {
    Exp::new(rate).map_or(f64::INFINITY, |times| times.sample(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn patterns() -> [Pattern; 5] {
        [
            Pattern::Poisson { rate: 5.0 },
            Pattern::Diurnal { mean: 5.0, swing: 0.9, period: HOUR },
            Pattern::Burst { rate: 50.0, from: HOUR / 4, until: HOUR / 2 },
            Pattern::OnOff { rate: 20.0, on: HOUR / 12, off: HOUR / 6 },
            Pattern::HeavyTailed { groups: 0.1, smallest: 10.0, shape: 1.5, largest: 10_000.0, rate: 20.0 },
        ]
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
        for pattern in patterns() {
            let (one, same, other) = (pattern.trace(HOUR, 1), pattern.trace(HOUR, 1), pattern.trace(HOUR, 2));
            assert_eq!(one, same);
            assert_ne!(one, other);
            assert!(one.jobs.is_sorted_by_key(|job| job.at), "{pattern:?}");
            assert!(one.jobs.iter().all(|job| job.at < HOUR && job.work == 1.0), "{pattern:?}");
        }
    }

    #[test]
    fn the_rates_match_the_pattern() {
        let per_second = |pattern: &Pattern, from: Duration, until: Duration| {
            let jobs = pattern.trace(HOUR, 7).jobs;
            let count = jobs.iter().filter(|job| (from..until).contains(&job.at)).count();
            count as f64 / (until - from).as_secs_f64()
        };
        let [poisson, diurnal, burst, ..] = patterns();
        assert!((per_second(&poisson, Duration::ZERO, HOUR) - 5.0).abs() < 0.2);
        assert!((per_second(&diurnal, Duration::ZERO, HOUR) - 5.0).abs() < 0.2);
        // The lowest rate is a tenth of the mean. Half a day later the rate is nearly twice the mean.
        assert!(per_second(&diurnal, Duration::ZERO, HOUR / 20) < 1.0);
        assert!(per_second(&diurnal, HOUR * 9 / 20, HOUR * 11 / 20) > 8.5);
        assert_eq!(per_second(&burst, Duration::ZERO, HOUR / 4), 0.0);
        assert!((per_second(&burst, HOUR / 4, HOUR / 2) - 50.0).abs() < 1.5);
    }
}
