use super::*;
use crate::comparison::UpperBound;
use crate::fixture::{objective, outcome, trace};

#[test]
fn the_cost_is_compared_with_the_cheapest_run_that_meets_the_objective_and_with_the_lower_bound() {
    let trace = trace(2);
    let bound = Duration::from_secs(1800);
    let objective = objective(95.0);
    let mut comparison =
        Comparison { name: "two", trace: &trace, objective, bound, upper_bound: None, runs: Vec::new() };
    for (name, latencies, cost) in [("usual", [1, 2], 5400), ("late", [1, 9], 900), ("oracle", [1, 2], 3600)] {
        comparison.runs.push(Run::new(name, &trace, 95.0, outcome(latencies.into_iter(), cost)));
    }
    assert_eq!(RunReport::new(&comparison, &comparison.runs[0]).times_upper_bound, None);
    comparison.upper_bound = UpperBound::of(&comparison.runs);
    let reports: Vec<_> = comparison.runs.iter().map(|run| RunReport::new(&comparison, run)).collect();
    assert_eq!(
        (reports[0].worker_hours, reports[0].times_upper_bound, reports[0].times_lower_bound),
        (1.5, Some(1.5), Some(3.0))
    );
    assert_eq!((reports[1].objective_met, reports[1].times_upper_bound), (false, Some(0.25)));
    assert_eq!((reports[2].policy, reports[2].times_upper_bound), ("oracle", Some(1.0)));
}
