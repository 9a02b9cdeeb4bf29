use super::*;
use crate::fixture::{outcome, trace};

#[test]
fn percentiles_are_latencies_of_real_jobs() {
    // 100 s, 99 s, ... 1 s.
    let figures = Figures::new(&trace(100), 5.0, &outcome((1..=100).rev(), 1));
    assert_eq!(figures.latencies, [50, 95, 99].map(|seconds| Some(Duration::from_secs(seconds))));
    assert_eq!((figures.attainment, figures.is_met, figures.unfinished), (0.05, true, 0));
    let figures = Figures::new(&trace(1), 95.0, &outcome([7].into_iter(), 1));
    assert_eq!(figures.latencies, [Some(Duration::from_secs(7)); 3]);
    assert!(!figures.is_met);
}

#[test]
fn jobs_that_never_ended_miss_every_objective() {
    let figures = Figures::new(&trace(100), 95.0, &outcome((0..90).map(|_| 1), 1));
    assert_eq!((figures.jobs, figures.unfinished, figures.attainment, figures.is_met), (100, 10, 0.9, false));
    assert_eq!(figures.latencies, [Some(Duration::from_secs(1)), None, None]);
}

#[test]
fn without_jobs_every_objective_is_met() {
    let figures = Figures::new(&trace(0), 95.0, &outcome(std::iter::empty(), 0));
    assert_eq!((figures.attainment, figures.is_met, figures.latencies), (1.0, true, [Some(Duration::ZERO); 3]));
}
