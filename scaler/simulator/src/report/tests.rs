use super::*;
use crate::fixture::{objective, outcome, trace};

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
