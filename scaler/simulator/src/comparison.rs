//! Runs every policy under every trace.

use std::time::Duration;

use policy::TriggerError;
use policy::reading::Fleet;
use rayon::prelude::*;

use super::conditions::{Conditions, Objectives, for_all_classes};
use super::decider::{Decider, decider};
use super::figures::Figures;
use super::oracle::{self, ORACLE, Oracle};
use super::outcome::Outcome;
use super::peers::Fixed;
use super::pool;
use super::scenario::{Objective, PolicySettings, Scenario};
use super::trace::Trace;
use super::view::View;
use super::worker::Worker;

/// The runs of all policies under one trace.
#[derive(Debug, Clone)]
pub struct Comparison<'a> {
    /// The name of the trace.
    pub name: &'a str,
    /// The trace.
    pub trace: &'a Trace,
    /// The latency objective.
    pub objective: Objective,
    /// A lower bound of the cost, see [`oracle::bound`].
    pub bound: Duration,
    /// The cheapest run that meets the objective: a policy, the oracle, or a constant number of workers. So it is an
    /// upper bound of the lowest possible cost. `None`: no run meets the objective, or the scenario has no oracle.
    pub upper_bound: Option<UpperBound>,
    /// The run of the oracle, if there is one, then the policies in the order of the scenario.
    pub runs: Vec<Run>,
}

/// The cheapest run that meets the objective.
#[derive(Debug, Clone, PartialEq)]
pub struct UpperBound {
    /// The cost.
    pub worker_time: Duration,
    /// The name of the run.
    pub policy: String,
}

/// The run of one policy under one trace.
#[derive(Debug, Clone)]
pub struct Run {
    /// The name of the policy.
    pub policy: String,
    /// The figures of the run.
    pub figures: Figures,
    /// The state of the pool at regular times.
    pub series: Vec<View>,
}

impl UpperBound {
    /// The cheapest of the runs that meet the objective.
    pub fn of<'r>(runs: impl IntoIterator<Item = &'r Run>) -> Option<Self> {
        let met = runs.into_iter().filter(|run| run.figures.is_met);
        let cheapest = met.min_by_key(|run| run.figures.worker_time)?;
        Some(Self { worker_time: cheapest.figures.worker_time, policy: cheapest.policy.clone() })
    }
}

impl Run {
    /// The run with this outcome.
    pub fn new(policy: &str, trace: &Trace, percentile: f64, outcome: Outcome) -> Self {
        let figures = Figures::new(trace, percentile, &outcome);
        let mut series = outcome.series;
        // The series ends when the pool is at rest after its last job, but the trace may be longer.
        if let Some(last) = series.last().filter(|last| last.now < trace.length).copied() {
            let rest = View {
                waiting: [0; 3],
                leased: 0,
                oldest_wait: Duration::ZERO,
                provisioning: 0,
                fleet: Fleet::default(),
                ..last
            };
            series.extend([rest, View { now: trace.length, ..rest }]);
        }
        Self { policy: policy.to_owned(), figures, series }
    }
}

/// A kind of run under a trace.
#[derive(Clone, Copy)]
enum Kind<'s> {
    Oracle,
    Fixed,
    Policy(&'s str, &'s PolicySettings),
}

/// Runs every policy of the scenario under every trace on all cores, and the oracle if the scenario asks for it. The
/// same scenario and traces give the same runs. `progress` is called with the names of the trace and of the run after
/// each run.
pub fn compare<'a>(
    scenario: &Scenario,
    traces: &'a [(String, Trace)],
    progress: &(dyn Fn(&str, &str) + Sync),
) -> Result<Vec<Comparison<'a>>, TriggerError> {
    let (worker, objective) = (scenario.worker.worker(), scenario.objective);
    let (objectives, conditions) = (for_all_classes(objective.latency.get()), scenario.worker.conditions());
    let kinds: Vec<Kind<'_>> = {
        let yardsticks = if scenario.oracle { &[Kind::Oracle, Kind::Fixed][..] } else { &[] };
        let policies = scenario.policies.iter().map(|(name, policy)| Kind::Policy(name, policy));
        yardsticks.iter().copied().chain(policies).collect()
    };
    // The oracle takes the longest time, so it begins first.
    let pairs: Vec<_> = traces.iter().flat_map(|named| kinds.iter().map(move |kind| (named, *kind))).collect();
    let run = |((name, trace), kind): &(&'a (String, Trace), Kind<'_>)| -> Result<Option<Run>, TriggerError> {
        let setting = Setting { trace, worker, objectives: &objectives, conditions: &conditions };
        let (policy, outcome) = match kind {
            Kind::Oracle => {
                let share = objective.percentile / 100.0;
                (ORACLE.to_owned(), Oracle::new(trace, worker, &objectives, &conditions, share).outcome())
            }
            Kind::Fixed => match setting.best_fixed(objective.percentile) {
                Some((number, outcome)) => (format!("{number} workers always"), Some(outcome)),
                None => (String::new(), None),
            },
            Kind::Policy(name, policy) => {
                let decider = decider(&policy.metadata, policy.scaled_object.rules(), &conditions)?;
                ((*name).to_owned(), Some(setting.run(decider)))
            }
        };
        progress(name, &policy);
        Ok(outcome.map(|outcome| Run::new(&policy, trace, objective.percentile, outcome)))
    };
    let runs: Result<Vec<Option<Run>>, TriggerError> = pairs.par_iter().map(run).collect();
    let mut runs = runs?.into_iter();
    let of_trace = |(name, trace): &'a (String, Trace)| {
        let mut runs: Vec<Option<Run>> = runs.by_ref().take(kinds.len()).collect();
        let upper_bound = if scenario.oracle { UpperBound::of(runs.iter().flatten()) } else { None };
        if scenario.oracle {
            // The best fixed number is a yardstick, not a policy of the scenario.
            runs.remove(1);
        }
        let bound = oracle::bound(trace, worker, &objectives, objective.percentile / 100.0);
        Comparison { name, trace, objective, bound, upper_bound, runs: runs.into_iter().flatten().collect() }
    };
    Ok(traces.iter().map(of_trace).collect())
}

/// A trace, and everything that is the same for all policies under it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) worker: Worker,
    pub(crate) objectives: &'a Objectives,
    pub(crate) conditions: &'a Conditions,
}

/// The largest constant number of workers that is tried.
const MAX_FIXED: u32 = 1000;

impl Setting<'_> {
    /// Runs a policy until the trace is over and all jobs have ended.
    pub(crate) fn run(&self, inner: Box<dyn Decider>) -> Outcome {
        let (over, jobs) = (self.trace.length, self.trace.jobs.len() as u64);
        let mut decider = StopAfterTrace { inner, over, jobs };
        pool::run_under(self.trace, self.worker, self.objectives, self.conditions, &mut decider)
    }

    /// The smallest constant number of workers that meets the objective, found by bisection.
    pub(crate) fn best_fixed(&self, percentile: f64) -> Option<(u32, Outcome)> {
        let run = |number: u32| {
            let outcome = self.run(Box::new(Fixed::new(number)));
            Figures::new(self.trace, percentile, &outcome).is_met.then_some(outcome)
        };
        let mut most: u32 = 1;
        let mut best = loop {
            match run(most) {
                Some(outcome) => break outcome,
                None if most >= MAX_FIXED => return None,
                None => most *= 2,
            }
        };
        let mut least = most / 2 + 1;
        while least < most {
            let middle = least.midpoint(most);
            match run(middle) {
                Some(outcome) => (most, best) = (middle, outcome),
                None => least = middle + 1,
            }
        }
        Some((most, best))
    }
}

/// How long a run may continue after its trace to end its jobs.
const MAX_OVERTIME: Duration = Duration::from_secs(20 * 3600);

/// Runs a policy until the trace is over and all jobs have ended, or until the overtime is over. Then it stops the
/// workers. So a policy that never stops its last workers has a finite cost, and the costs of all policies cover the
/// same time.
struct StopAfterTrace {
    inner: Box<dyn Decider>,
    over: Duration,
    jobs: u64,
}

impl Decider for StopAfterTrace {
    fn due(&self) -> Duration {
        self.inner.due()
    }

    fn decide(&mut self, view: &View) -> u32 {
        let wanted = self.inner.decide(view);
        let is_over = view.now >= self.over && view.ended == self.jobs;
        let is_overtime = view.now >= self.over + MAX_OVERTIME;
        if is_over || is_overtime { 0 } else { wanted }
    }

    fn on_arrival(&mut self, view: &View) -> u32 {
        self.inner.on_arrival(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Source;
    use crate::scenario::source::Burst;

    /// A scenario that is not read from a file.
    fn scenario(policies: &str) -> Scenario {
        let text = format!(
            r#"{{"objective": {{"latency": "5s"}}, "oracle": false,
            "worker": {{"cold_start": "10s", "batch_base": "100ms", "batch_item": "0s", "batch_limit": 1}},
            "traces": {{"steady": {{"poisson": {{"rate": 2}}, "length": "10m"}}}},
            "policies": {{{policies}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn runs(policies: &str) -> Vec<Run> {
        let scenario = scenario(policies);
        let traces = scenario.load_traces(std::path::Path::new(".")).unwrap();
        let mut comparisons = compare(&scenario, &traces, &|_, _| {}).unwrap();
        assert_eq!((comparisons.len(), comparisons[0].name), (1, "steady"));
        comparisons.remove(0).runs
    }

    #[test]
    fn every_policy_runs_under_its_name_and_its_own_rules() {
        let runs = runs(
            r#""slow": {"metadata": {"value": "50"}, "scaled_object": {"maxReplicaCount": 1}},
            "fast": {"metadata": {"value": "0.1"}}"#,
        );
        assert_eq!(runs.iter().map(|run| run.policy.as_str()).collect::<Vec<_>>(), ["slow", "fast"]);
        let [slow, fast] = [&runs[0].figures, &runs[1].figures];
        assert_eq!((slow.peak_workers, slow.starts, slow.unfinished), (1, 1, 0));
        assert!(fast.peak_workers > 1 && fast.worker_time > slow.worker_time);
        assert!(fast.attainment >= slow.attainment);
    }

    #[test]
    fn a_pool_that_is_at_rest_early_has_a_series_until_its_trace_is_over() {
        let mut scenario = scenario(r#""usual": {"metadata": {}}"#);
        let seconds = service::Period::seconds;
        let burst = Some(Burst { rate: 5.0, from: seconds(60), until: seconds(120) });
        let source = Source { burst, length: Some(seconds(3600)), ..Source::default() };
        scenario.traces.insert("steady".to_owned(), source);
        let traces = scenario.load_traces(std::path::Path::new(".")).unwrap();
        let runs = compare(&scenario, &traces, &|_, _| {}).unwrap().remove(0).runs;
        let last = runs[0].series.last().unwrap();
        assert_eq!((last.now, last.ready(), last.waiting()), (Duration::from_secs(3600), 0, 0));
        assert_eq!(last.ended, runs[0].figures.jobs);
    }

    #[test]
    fn a_policy_that_never_stops_its_workers_pays_for_them_until_the_trace_is_over() {
        let object = r#"{"minReplicaCount": 2, "maxReplicaCount": 2}"#;
        let runs = runs(&format!(r#""kept": {{"metadata": {{}}, "scaled_object": {object}}}"#));
        // Two workers for ten minutes, and until the next turn of the HPA.
        let paid = runs[0].figures.worker_time.as_secs();
        assert!((1100..=1240).contains(&paid), "{paid}");
    }

    #[test]
    fn a_run_that_cannot_keep_up_is_stopped_with_its_cost_and_its_unfinished_jobs() {
        let mut scenario = scenario(r#""one": {"metadata": {}, "scaled_object": {"maxReplicaCount": 1}}"#);
        scenario.worker.batch_base = service::Period::seconds(3600);
        let traces = scenario.load_traces(std::path::Path::new(".")).unwrap();
        let figures = compare(&scenario, &traces, &|_, _| {}).unwrap().remove(0).runs.remove(0).figures;
        assert!(figures.unfinished > 1000 && figures.jobs - figures.unfinished >= 20, "{figures:?}");
        assert!(figures.worker_time > MAX_OVERTIME);
    }
}
