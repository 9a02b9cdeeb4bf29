use service::Period;

use super::*;
use crate::outcome::Outcome;
use crate::scenario::Objective;
use crate::trace::{Arrival, Trace};

fn objective(percentile: f64) -> Objective {
    Objective { latency: Period::seconds(5), percentile }
}

fn trace(jobs: usize) -> Trace {
    let job = |at: usize| Arrival { at: Duration::from_secs(at as u64), work: 1.0 };
    Trace { jobs: (0..jobs).map(job).collect(), length: Duration::from_secs(jobs as u64) }
}

fn outcome(latencies: impl Iterator<Item = u64>, worker_seconds: u64) -> Outcome {
    let latencies: Vec<_> = latencies.map(Duration::from_secs).collect();
    let within = latencies.iter().filter(|latency| latency.as_secs() <= 5).count() as u64;
    let worker_time = Duration::from_secs(worker_seconds);
    Outcome { latencies, within, worker_time, starts: 3, cold_starts: 2, series: Vec::new() }
}

#[test]
fn the_cost_is_compared_with_that_of_the_oracle_if_there_is_one() {
    let trace = trace(2);
    let mut comparison =
        Comparison { name: "two", trace: &trace, objective: objective(95.0), bound: Duration::ZERO, runs: Vec::new() };
    comparison.runs.push(Run::new("usual", &trace, comparison.objective, outcome([1, 2].into_iter(), 5400)));
    assert_eq!(RunReport::new(&comparison, &comparison.runs[0]).times_oracle, None);
    comparison.runs.push(Run::new("oracle", &trace, comparison.objective, outcome([1, 2].into_iter(), 3600)));
    let reports: Vec<_> = comparison.runs.iter().map(|run| RunReport::new(&comparison, run)).collect();
    assert_eq!((reports[0].worker_hours, reports[0].times_oracle), (1.5, Some(1.5)));
    assert_eq!((reports[1].policy, reports[1].times_oracle), ("oracle", Some(1.0)));
}
