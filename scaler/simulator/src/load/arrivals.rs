//! Arrivals at a rate that is a function of time, and amounts of work.

use std::time::Duration;

use queue::Class;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp, Pareto};

use crate::trace::{Arrival, Trace};

/// Independent arrivals at a rate that changes over time, by thinning of arrivals at the highest rate (Lewis and Shedler,
/// 1979). Every job is one item.
pub(super) fn arrivals(length: Duration, highest: f64, seed: u64, rate: impl Fn(f64) -> f64) -> Trace {
    let mut random = StdRng::seed_from_u64(seed);
    let end = length.as_secs_f64();
    let mut jobs = Vec::new();
    let Ok(distances) = Exp::new(highest) else { return Trace { jobs, length } };
    let mut at: f64 = distances.sample(&mut random);
    while at < end {
        if random.random::<f64>() * highest < rate(at) {
            jobs.push(Arrival { at: Duration::from_secs_f64(at), work: 1.0, class: Class::Standard });
        }
        at += distances.sample(&mut random);
    }
    Trace { jobs, length }
}

/// Both traces at the same time.
pub(super) fn together(one: Trace, other: Trace) -> Trace {
    let mut jobs = [one.jobs, other.jobs].concat();
    jobs.sort_by_key(|job| job.at);
    Trace { jobs, length: one.length.max(other.length) }
}

/// The same arrivals in another class.
pub(super) fn in_class(class: Class, mut trace: Trace) -> Trace {
    trace.jobs.iter_mut().for_each(|job| job.class = class);
    trace
}

/// Jobs that arrive within a second.
pub(super) fn at_once(length: Duration, at: Duration, count: u32) -> Trace {
    let job = |number: u32| Arrival {
        at: at + Duration::from_secs_f64(f64::from(number) / f64::from(count)),
        work: 1.0,
        class: Class::Standard,
    };
    Trace { jobs: (0..count).map(job).collect(), length }
}

/// Each job gets a heavy-tailed amount of work with the mean 1 (Pareto), at most 100 items.
pub(super) fn heavy_tailed_work(mut trace: Trace, shape: f64, seed: u64) -> Trace {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
    if let Ok(sizes) = Pareto::new((shape - 1.0) / shape, shape) {
        trace.jobs.iter_mut().for_each(|job| job.work = sizes.sample(&mut random).min(100.0));
    }
    trace
}

/// One job in `every` has `work` items.
pub(super) fn some_large(mut trace: Trace, every: u32, work: f64, seed: u64) -> Trace {
    let mut random = StdRng::seed_from_u64(seed ^ 0x1a49e);
    for job in trace.jobs.iter_mut().filter(|_| random.random_range(0..every) == 0) {
        job.work = work;
    }
    trace
}
