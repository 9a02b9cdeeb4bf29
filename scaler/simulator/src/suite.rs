//! Policies and their peers under the loads of the library, in one table.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use policy::TriggerError;
use policy::replicas::{Behavior, Policy, Rules, Select, Step};
use queue::Class;
use rayon::prelude::*;

use super::comparison::{Run, Setting, UpperBound};
use super::decider::decider;
use super::load::Load;
use super::oracle::{self, ORACLE, Oracle};
use super::peers::Kpa;

pub use table::{Summary, table};

/// The name of mode latency in the table.
pub const LATENCY: &str = "latency";
/// The name of Knative's autoscaler.
pub const KPA: &str = "kpa";
/// The name of the best threshold on the backlog.
pub const THRESHOLD: &str = "threshold";
/// The name of the best constant number of workers.
pub const FIXED: &str = "fixed";

/// The maximum number of workers of every policy.
const MAX_WORKERS: u32 = 100;

/// Jobs of backlog per worker, in full batches, that are tried as thresholds.
const THRESHOLDS: [f64; 8] = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

/// All runs under one load.
#[derive(Debug, Clone)]
pub struct Row {
    /// The name of the load.
    pub load: String,
    /// The length of the load.
    pub length: Duration,
    /// No schedule that meets the promise costs less.
    pub lower_bound: Duration,
    /// The cheapest run that keeps the promise. `None`: no run keeps it.
    pub upper_bound: Option<UpperBound>,
    /// The starts of the run of the upper bound.
    pub upper_starts: u32,
    /// One run per column, by name. The best threshold has its number in [`Row::threshold`].
    pub runs: Vec<Run>,
    /// The best threshold, in jobs per worker.
    pub threshold: f64,
    /// The best constant number of workers.
    pub fixed: Option<u32>,
}

impl Row {
    /// The run of a column.
    pub fn run(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.policy == name)
    }
}

/// Runs every load on all cores, without the oracle if `searches` is not set. `progress` is called with the name of each
/// load that has ended.
pub fn run(loads: &[Load], searches: bool, progress: &(dyn Fn(&str) + Sync)) -> Result<Vec<Row>, TriggerError> {
    let row = |load: &Load| {
        let row = row(load, searches)?;
        progress(&load.name);
        Ok(row)
    };
    loads.par_iter().map(row).collect()
}

fn row(load: &Load, searches: bool) -> Result<Row, TriggerError> {
    let Load { trace, worker, objectives, conditions, percentile, .. } = load;
    let setting = Setting { trace, worker: *worker, objectives, conditions };
    let run_of = |name: &str, outcome| Run::new(name, trace, *percentile, outcome);
    let mut runs = vec![latency(load)?];
    runs.push(run_of(KPA, setting.run(Box::new(Kpa::new(worker.batch_limit, MAX_WORKERS)))));
    let (threshold, best) = best_threshold(load, &setting)?;
    runs.push(best);
    let fixed = setting.best_fixed(*percentile);
    let number = fixed.as_ref().map(|(number, _)| *number);
    runs.extend(fixed.map(|(_, outcome)| run_of(FIXED, outcome)));
    let share = percentile / 100.0;
    if searches {
        let oracle = Oracle::new(trace, *worker, objectives, conditions, share).outcome();
        runs.extend(oracle.map(|outcome| run_of(ORACLE, outcome)));
    }
    let upper_bound = UpperBound::of(&runs);
    let upper_starts = upper_bound.as_ref().and_then(|upper| runs.iter().find(|run| run.policy == upper.policy));
    Ok(Row {
        load: load.name.clone(),
        length: trace.length,
        lower_bound: oracle::bound(trace, *worker, objectives, share),
        upper_starts: upper_starts.map_or(0, |run| run.figures.starts),
        upper_bound,
        runs,
        threshold,
        fixed: number,
    })
}

/// The run of mode latency under a load.
pub fn latency(load: &Load) -> Result<Run, TriggerError> {
    let Load { trace, worker, objectives, conditions, percentile, .. } = load;
    let setting = Setting { trace, worker: *worker, objectives, conditions };
    let outcome = setting.run(decider(&metadata(load), recommended_rules(), conditions)?);
    Ok(Run::new(LATENCY, trace, *percentile, outcome))
}

/// The trigger of mode latency for a load. It has the objectives and nothing else.
fn metadata(load: &Load) -> BTreeMap<String, String> {
    let objective = |class: Class| {
        let seconds = load.objectives[class as usize].map(|objective| format!("{}s", objective.as_secs()));
        format!("{} {}", class.as_str(), seconds.as_deref().unwrap_or("none"))
    };
    let pairs = [
        ("mode", "latency".to_owned()),
        ("latency", Class::ALL.map(objective).join(", ")),
        ("percentile", load.percentile.to_string()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The rules of `deploy/keda/latency.yaml`.
fn recommended_rules() -> Rules {
    let rules = Rules { max: MAX_WORKERS, has_behavior: true, ..Rules::default() };
    let policies = vec![Policy { step: Step::Pods(MAX_WORKERS), period: Duration::from_secs(15) }];
    Rules {
        polling_interval: Duration::from_secs(15),
        // The scaler keeps the pool active for as long as it keeps workers.
        cooldown: Duration::from_secs(30),
        up: Behavior { policies, select: Select::Max, ..rules.up },
        down: Behavior { stabilization_window: Duration::ZERO, ..rules.down },
        ..rules
    }
}

/// The threshold on the backlog that keeps the promise at the lowest cost, or else keeps most of it, with the defaults of
/// KEDA and the HPA.
fn best_threshold(load: &Load, setting: &Setting<'_>) -> Result<(f64, Run), TriggerError> {
    let mut best: Option<(f64, Run)> = None;
    for batches in THRESHOLDS {
        let value = batches * f64::from(load.worker.batch_limit);
        let metadata = BTreeMap::from([("value".to_owned(), value.to_string())]);
        let rules = Rules { max: MAX_WORKERS, ..Rules::default() };
        let outcome = setting.run(decider(&metadata, rules, setting.conditions)?);
        let run = Run::new(THRESHOLD, setting.trace, load.percentile, outcome);
        let rank = |run: &Run| {
            let figures = &run.figures;
            let missed = if figures.is_met { 0.0 } else { 1.0 - figures.attainment };
            (missed, figures.worker_time)
        };
        if best.as_ref().is_none_or(|(_, best)| rank(&run) < rank(best)) {
            best = Some((value, run));
        }
    }
    // There is at least one threshold, so there is a best one.
    best.ok_or(TriggerError { key: "value".to_owned(), message: "no threshold was tried".to_owned() })
}
