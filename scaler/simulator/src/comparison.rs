//! Runs every policy under every trace.

use std::time::Duration;

use policy::TriggerError;
use rayon::prelude::*;

use super::decider::{Decider, decider};
use super::figures::Figures;
use super::oracle::{self, ORACLE, Oracle};
use super::outcome::Outcome;
use super::pool;
use super::scenario::{Objective, PolicySettings, Scenario};
use super::trace::Trace;
use super::view::View;

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
    /// The run of the oracle, if there is one, then the policies in the order of the scenario.
    pub runs: Vec<Run>,
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

impl Comparison<'_> {
    /// The worker time of the oracle, if there is one.
    pub fn oracle_time(&self) -> Option<Duration> {
        self.runs.iter().find(|run| run.policy == ORACLE).map(|run| run.figures.worker_time)
    }
}

impl Run {
    /// The run with this outcome.
    pub fn new(policy: &str, trace: &Trace, objective: Objective, outcome: Outcome) -> Self {
        let figures = Figures::new(trace, objective, &outcome);
        let mut series = outcome.series;
        // The series ends when the pool is at rest after its last job, but the trace may be longer.
        if let Some(last) = series.last().filter(|last| last.now < trace.length).copied() {
            let rest = View { waiting: 0, leased: 0, oldest_wait: Duration::ZERO, ready: 0, loading: 0, ..last };
            series.extend([rest, View { now: trace.length, ..rest }]);
        }
        Self { policy: policy.to_owned(), figures, series }
    }
}

/// Runs every policy of the scenario under every trace on all cores, and the oracle if the scenario asks for it. The
/// same scenario and traces give the same runs.
pub fn compare<'a>(scenario: &Scenario, traces: &'a [(String, Trace)]) -> Result<Vec<Comparison<'a>>, TriggerError> {
    let (worker, objective) = (scenario.worker.worker(), scenario.objective);
    let policies = || scenario.policies.iter().map(|(name, policy)| Some((name, policy)));
    let oracle = scenario.oracle.then_some(None);
    let pairs: Vec<_> = traces
        .iter()
        // The oracle takes the longest time, so it begins first.
        .flat_map(|(_, trace)| oracle.into_iter().chain(policies()).map(move |policy| (trace, policy)))
        .collect();
    let run = |(trace, policy): &(&'a Trace, Option<(&String, &PolicySettings)>)| -> Result<Option<Run>, TriggerError> {
        let Some((name, policy)) = policy else {
            let oracle = Oracle::new(trace, worker, objective.latency.get(), objective.percentile / 100.0);
            return Ok(oracle.outcome().map(|outcome| Run::new(ORACLE, trace, objective, outcome)));
        };
        let inner = decider(&policy.metadata, policy.scaled_object.rules())?;
        let mut decider = StopAfterTrace { inner, over: trace.length, jobs: trace.jobs.len() as u64 };
        let outcome = pool::run(trace, worker, objective.latency.get(), &mut decider);
        Ok(Some(Run::new(name, trace, objective, outcome)))
    };
    let runs: Result<Vec<Option<Run>>, TriggerError> = pairs.par_iter().map(run).collect();
    let mut runs = runs?.into_iter();
    let of_trace = |(name, trace): &'a (String, Trace)| Comparison {
        name,
        trace,
        objective,
        bound: oracle::bound(trace, worker),
        runs: runs.by_ref().take(scenario.policies.len() + usize::from(scenario.oracle)).flatten().collect(),
    };
    Ok(traces.iter().map(of_trace).collect())
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
        let mut comparisons = compare(&scenario, &traces).unwrap();
        assert_eq!((comparisons.len(), comparisons[0].name), (1, "steady"));
        comparisons.remove(0).runs
    }

    #[test]
    fn every_policy_runs_under_its_name_and_its_own_rules() {
        let runs = runs(
            r#""slow": {"metadata": {"value": "50"}, "scaled_object": {"maxReplicaCount": 1}},
            "fast": {"metadata": {"value": "1"}}"#,
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
        let runs = compare(&scenario, &traces).unwrap().remove(0).runs;
        let last = runs[0].series.last().unwrap();
        assert_eq!((last.now, last.ready, last.waiting), (Duration::from_secs(3600), 0, 0));
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
        let figures = compare(&scenario, &traces).unwrap().remove(0).runs.remove(0).figures;
        assert!(figures.unfinished > 1000 && figures.jobs - figures.unfinished >= 20, "{figures:?}");
        assert!(figures.worker_time > MAX_OVERTIME);
    }
}
