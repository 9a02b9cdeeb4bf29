//! The loads of the suite.

use std::f64::consts::TAU;
use std::time::Duration;

use queue::Class;

use super::Load;
use super::arrivals::{arrivals, at_once, heavy_tailed_work, in_class, some_large, together};
use crate::conditions::Conditions;
use crate::trace::{Pattern, Trace};
use crate::worker::Worker;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A worker that gains little from batches: 4.2 jobs per second.
const PLAIN: Worker = Worker {
    cold_start: MINUTE,
    batch_base: Duration::from_millis(70),
    batch_item: Duration::from_millis(230),
    batch_limit: 8,
};

/// A worker that gains much from batches: 28 jobs per second in full batches, less than 1 one by one.
const WIDE: Worker = Worker {
    cold_start: MINUTE,
    batch_base: Duration::from_secs(1),
    batch_item: Duration::from_millis(20),
    batch_limit: 64,
};

/// The loads of the suite for a seed. The seed determines the arrivals, the work and the times of workers.
pub fn library(seed: u64) -> Vec<Load> {
    let mut loads = on_off(seed);
    loads.extend(steady(seed));
    loads.extend(ramps(seed));
    loads.extend(falling(seed));
    loads.extend(groups(seed));
    loads.extend(days(seed));
    loads.extend(uneven_work(seed));
    loads.extend(classes(seed));
    loads.extend(clusters(seed));
    loads
}

/// Phases of equal length with and without jobs. The first phase has none.
fn square(minutes: u64, rate: f64, floor: f64, seed: u64) -> Trace {
    let turn = minutes as f64 * 60.0;
    arrivals(4 * HOUR, rate.max(floor), seed, |at| if (at / turn) as u64 % 2 == 1 { rate } else { floor })
}

fn on_off(seed: u64) -> Vec<Load> {
    let cases = [
        (1, 10),
        (1, 60),
        (1, 300),
        (3, 60),
        (3, 180),
        (5, 10),
        (5, 60),
        (5, 180),
        (5, 300),
        (7, 60),
        (10, 60),
        (10, 300),
        (15, 60),
        (15, 180),
        (30, 60),
        (30, 300),
    ];
    let load = |(minutes, cold): (u64, u64)| {
        Load::new(&format!("on/off {minutes}m"), cold, PLAIN, square(minutes, 14.0, 0.0, seed), seed)
    };
    let over_a_floor = Load::new("on/off 3m over a floor", 60, PLAIN, square(3, 14.0, 3.0, seed), seed);
    let random = Pattern::OnOff { rate: 14.0, on: 10 * MINUTE, off: 10 * MINUTE }.trace(4 * HOUR, seed);
    let random = Load::new("on/off random 10m", 60, PLAIN, random, seed);
    cases.into_iter().map(load).chain([over_a_floor, random]).collect()
}

fn steady(seed: u64) -> Vec<Load> {
    let load = |(rate, cold): (f64, u64)| {
        let trace = Pattern::Poisson { rate }.trace(4 * HOUR, seed);
        Load::new(&format!("steady {rate}/s"), cold, PLAIN, trace, seed)
    };
    [(0.3, 60), (3.0, 300), (18.0, 60), (18.0, 180)].into_iter().map(load).collect()
}

fn ramps(seed: u64) -> Vec<Load> {
    let ramp = |hours: f64| {
        arrivals(HOUR.mul_f64(hours + 1.0), 30.0, seed, |at| 0.1 + 29.9 * (at / (hours * 3600.0)).min(1.0))
    };
    let load = |(hours, cold): (f64, u64)| Load::new(&format!("ramp {hours}h"), cold, PLAIN, ramp(hours), seed);
    [(1.0, 60), (1.0, 180), (1.0, 300), (2.0, 180)].into_iter().map(load).collect()
}

/// A quarter of an hour up to the peak, an hour there, then almost nothing.
fn falling(seed: u64) -> Vec<Load> {
    let trace = arrivals(4 * HOUR, 50.0, seed, |at| match at {
        at if at < 900.0 => 1.0 + 49.0 * at / 900.0,
        at if at < 4500.0 => 50.0,
        _ => 1.0,
    });
    let wide = [60, 180].map(|cold| Load::new("falling, wide batches", cold, WIDE, trace.clone(), seed));
    let slow = arrivals(4 * HOUR, 20.0, seed, |at| (20.0 * (1.0 - at / 10_800.0)).max(0.5));
    wide.into_iter().chain([Load::new("falling for 3h", 60, PLAIN, slow, seed)]).collect()
}

/// Groups of jobs: heavy-tailed sizes, far apart, and a sudden one.
fn groups(seed: u64) -> Vec<Load> {
    let heavy = Pattern::HeavyTailed { groups: 0.01, smallest: 50.0, shape: 1.5, largest: 2000.0, rate: 10.0 };
    let heavy = [60, 180].map(|cold| Load::new("heavy-tailed groups", cold, PLAIN, heavy.trace(4 * HOUR, seed), seed));
    let far = arrivals(8 * HOUR, 10.0, seed, |at| if at % 4200.0 < 120.0 { 10.0 } else { 0.0 });
    let far = Load::new("groups 70m apart", 60, PLAIN, far, seed);
    let burst = [10, 60].map(|cold| {
        let burst = arrivals(2 * HOUR, 40.0, seed, |at| if (3600.0..5400.0).contains(&at) { 40.0 } else { 2.0 });
        Load::new("burst over a floor", cold, PLAIN, burst, seed)
    });
    let tiny = arrivals(12 * HOUR, 1.0 / 1200.0, seed, |_| 1.0 / 1200.0);
    let tiny = Load::new("one job in 20m", 300, PLAIN, tiny, seed);
    heavy.into_iter().chain([far]).chain(burst).chain([tiny]).collect()
}

fn days(seed: u64) -> Vec<Load> {
    let sine = |cold| {
        let trace = Pattern::Diurnal { mean: 10.0, swing: 0.9, period: 4 * HOUR }.trace(8 * HOUR, seed);
        Load::new("diurnal 4h", cold, PLAIN, trace, seed)
    };
    // Work begins at 9 and ends at 17, within a minute.
    let is_at_work = |at: f64| (9.0..17.0).contains(&(at / 3600.0 % 24.0));
    let edges = |cold| {
        let rate = |at: f64| if is_at_work(at) { 8.0 } else { 0.2 };
        Load::new("working days", cold, PLAIN, arrivals(48 * HOUR, 8.0, seed, rate), seed)
    };
    let week = |at: f64| {
        let is_weekend = (at / 86_400.0) as u64 % 7 >= 5;
        let day = 1.0 - (TAU * at / 86_400.0).cos();
        if is_weekend { 0.1 } else { 0.1 + 0.9 * day }
    };
    let weekly = Load::new("weekly", 180, PLAIN, arrivals(7 * 24 * HOUR, 2.0, seed, week), seed);
    vec![sine(60), sine(300), edges(60), edges(300), weekly]
}

fn uneven_work(seed: u64) -> Vec<Load> {
    let steady = || Pattern::Poisson { rate: 10.0 }.trace(4 * HOUR, seed);
    let heavy =
        [60, 180].map(|cold| Load::new("heavy-tailed work", cold, PLAIN, heavy_tailed_work(steady(), 1.8, seed), seed));
    let some = Load::new("one in fifty is 20 x as large", 60, PLAIN, some_large(steady(), 50, 20.0, seed), seed);
    heavy.into_iter().chain([some]).map(|load| load.with_objectives([Some(Duration::from_secs(30)); 3])).collect()
}

fn classes(seed: u64) -> Vec<Load> {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let premium = || in_class(Class::Premium, Pattern::Poisson { rate: 2.0 }.trace(4 * HOUR, seed));
    let nightly = in_class(Class::Batch, at_once(4 * HOUR, HOUR, 8000));
    let interactive = Pattern::Poisson { rate: 2.0 }.trace(4 * HOUR, seed);
    let nightly = Load::new("8000 batch jobs at once", 60, PLAIN, together(interactive, nightly), seed)
        .with_objectives([seconds(10), seconds(10), None]);
    let mixed = [60, 180].map(|cold| {
        let standard = Pattern::OnOff { rate: 8.0, on: 10 * MINUTE, off: 10 * MINUTE }.trace(4 * HOUR, seed + 1);
        let batch = in_class(Class::Batch, Pattern::Poisson { rate: 2.0 }.trace(4 * HOUR, seed + 2));
        let trace = together(together(premium(), standard), batch);
        Load::new("mixed classes", cold, PLAIN, trace, seed).with_objectives([seconds(5), seconds(20), None])
    });
    [nightly].into_iter().chain(mixed).collect()
}

/// What a cluster does to workers.
fn clusters(seed: u64) -> Vec<Load> {
    let five = || square(5, 14.0, 0.0, seed);
    let steady = || Pattern::Poisson { rate: 14.0 }.trace(4 * HOUR, seed);
    let from_nothing = || arrivals(2 * HOUR, 20.0, seed, |at| if at < 600.0 { 0.0 } else { 20.0 });
    let with = |load: Load, what: &str, change: fn(Conditions) -> Conditions| Load {
        name: format!("{} ({what})", load.name),
        conditions: change(load.conditions),
        ..load
    };
    let ramp = arrivals(2 * HOUR, 30.0, seed, |at| 0.1 + 29.9 * (at / 3600.0).min(1.0));
    let crashes = |conditions| Conditions { crashes_after: Some(20 * MINUTE), ..conditions };
    let never = |conditions| Conditions { never_ready: 0.1, ..conditions };
    vec![
        Load::new("on/off 5m", 80, PLAIN, five(), seed).unseen(60, 1.5),
        Load::new("on/off 5m", 200, PLAIN, five(), seed).unseen(180, 1.5),
        Load::new("from nothing to 20/s", 260, PLAIN, from_nothing(), seed).unseen(240, 1.0),
        Load::new("from nothing to 20/s", 260, PLAIN, from_nothing(), seed).unseen(240, 1.5),
        Load::new("ramp 1h", 180, PLAIN, ramp, seed).unseen(150, 1.3),
        with(Load::new("steady 14/s", 60, PLAIN, steady(), seed), "crashes after 20m", crashes),
        with(Load::new("steady 14/s", 60, PLAIN, steady(), seed), "1 in 10 never ready", never),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_at_least_forty_loads_with_names_of_their_own_and_few_jobs() {
        let loads = library(1);
        let names: BTreeSet<&str> = loads.iter().map(|load| load.name.as_str()).collect();
        assert!(loads.len() >= 40 && names.len() == loads.len(), "{} of {}", names.len(), loads.len());
        for load in &loads {
            let jobs = &load.trace.jobs;
            assert!(jobs.is_sorted_by_key(|job| job.at) && jobs.len() < 800_000, "{}: {}", load.name, jobs.len());
            assert!(jobs.len() >= 20, "{}: {}", load.name, jobs.len());
        }
    }

    #[test]
    fn a_seed_gives_the_same_loads_again_and_another_seed_gives_others() {
        let (one, same, other) = (library(1), library(1), library(2));
        for ((one, same), other) in one.iter().zip(&same).zip(&other) {
            assert_eq!(one.trace, same.trace, "{}", one.name);
            assert_ne!(one.trace, other.trace, "{}", one.name);
        }
    }
}
