//! What is simulated, as a YAML file says it: an objective, a worker, traces and policies.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use service::{Config, Faults, Period, Sources, config};

pub use scaled_object::ScaledObject;
pub use source::Source;

use super::decider::decider;
use super::oracle::ORACLE;
use super::trace::Trace;
use super::worker::Worker;

pub mod scaled_object;
pub mod source;

/// The longest name of a trace or a policy, in characters.
const LONGEST_NAME: usize = 60;

/// The longest time that is promised, or that a worker takes.
const LONGEST_TIME: Period = Period::seconds(24 * 3600);

/// What is simulated: every policy under every trace.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What jobs are promised.
    pub objective: Objective,
    /// What a worker is like.
    pub worker: WorkerTimes,
    /// Whether the policies are compared with somebody who knows the trace beforehand, which takes longer than they do.
    #[serde(default = "yes")]
    pub oracle: bool,
    /// The loads, by name.
    #[schemars(with = "BTreeMap<String, Source>", extend("minProperties" = 1))]
    pub traces: IndexMap<String, Source>,
    /// What decides about the workers, by name.
    #[schemars(with = "BTreeMap<String, PolicySettings>", extend("minProperties" = 1))]
    pub policies: IndexMap<String, PolicySettings>,
}

fn yes() -> bool {
    true
}

/// What jobs are promised: `percentile` percent of them end within `latency` of their arrival.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// From arrival to end. A job that finds no worker ready has the cold start on top of it.
    pub latency: Period,
    /// For how many of a hundred jobs.
    #[serde(default = "Objective::usual_percentile")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percentile: f64,
}

impl Objective {
    fn usual_percentile() -> f64 {
        95.0
    }
}

/// What a worker is like, as measured.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerTimes {
    /// From its start until it takes jobs.
    pub cold_start: Period,
    /// What a batch takes, however small it is.
    pub batch_base: Period,
    /// What each item of it takes besides.
    pub batch_item: Period,
    /// The most items of a batch.
    pub batch_limit: NonZeroU32,
}

impl WorkerTimes {
    /// The same, for [`super::pool::run`].
    pub fn worker(&self) -> Worker {
        Worker {
            cold_start: self.cold_start.get(),
            batch_base: self.batch_base.get(),
            batch_item: self.batch_item.get(),
            batch_limit: self.batch_limit.get(),
        }
    }
}

/// What decides about the workers: the scaler as a ScaledObject's trigger asks for it, and KEDA and the HPA as that
/// object sets them.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// The trigger's metadata. The pool is the simulated one, so `pool` may be left out.
    pub metadata: BTreeMap<String, String>,
    /// KEDA and the HPA; their own defaults where it says nothing.
    #[serde(default)]
    pub scaled_object: ScaledObject,
}

impl Scenario {
    /// Reads a scenario, or says everything that is wrong with it.
    pub fn read(file: &Path) -> Result<Self, Faults> {
        config::load(&Sources { file: Some(file.to_owned()), ..Sources::default() })
    }

    /// Makes or reads every trace, in the order of the scenario. Files are found from `folder`, the scenario's.
    pub fn load_traces(&self, folder: &Path) -> Result<Vec<(String, Trace)>, Faults> {
        let mut faults = Faults::default();
        let mut traces = Vec::with_capacity(self.traces.len());
        for (name, source) in &self.traces {
            match source.load(folder) {
                Ok(trace) => traces.push((name.clone(), trace)),
                Err((key, error)) => faults.add(format_args!("traces.{name}.{key}"), error),
            }
        }
        faults.none_or(traces)
    }
}

impl Config for Scenario {
    fn check(&self, faults: &mut Faults) {
        if self.objective.latency.is_zero() || self.objective.latency > LONGEST_TIME {
            let rule = format!("is not more than 0s and at most {LONGEST_TIME}");
            faults.refuse("objective.latency", self.objective.latency, rule);
        }
        for (name, period) in [
            ("cold_start", self.worker.cold_start),
            ("batch_base", self.worker.batch_base),
            ("batch_item", self.worker.batch_item),
        ] {
            if period > LONGEST_TIME {
                faults.refuse(format_args!("worker.{name}"), period, format_args!("is not at most {LONGEST_TIME}"));
            }
        }
        if self.objective.percentile <= 0.0 {
            faults.refuse("objective.percentile", self.objective.percentile, "is not more than 0");
        }
        if self.worker.batch_base.is_zero() && self.worker.batch_item.is_zero() {
            faults.refuse(
                "worker.batch_item",
                self.worker.batch_item,
                "with batch_base 0s makes batches that take no time",
            );
        }
        for (name, source) in &self.traces {
            let key = format!("traces.{name}");
            // It becomes the name of a file.
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.starts_with('.') || name.len() > LONGEST_NAME || !name.chars().all(is_allowed) {
                let rule = format!("is not 1 to {LONGEST_NAME} letters, digits, -, _ and ., the first not a .");
                faults.refuse(&key, format_args!("the name {name:?}"), rule);
            }
            source.check(&key, faults);
        }
        for (name, policy) in &self.policies {
            let key = format!("policies.{name}");
            let length = name.chars().count();
            if length == 0 || length > LONGEST_NAME || name.chars().any(char::is_control) || name == ORACLE {
                let rule = format!("is not 1 to {LONGEST_NAME} printable characters other than {ORACLE:?}");
                faults.refuse(&key, format_args!("the name {name:?}"), rule);
            }
            policy.scaled_object.check(&format!("{key}.scaled_object"), faults);
            if let Err(error) = decider(&policy.metadata, policy.scaled_object.rules()) {
                faults.add(format_args!("{key}.metadata.{}", error.key), error.message);
            }
        }
    }
}

#[cfg(test)]
mod tests;
