//! A scenario from a YAML file: an objective, a worker, traces and policies.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use service::{Config, Faults, Period, Sources, config};

pub use scaled_object::ScaledObject;
pub use source::Source;

use super::conditions::{Conditions, Provisioning};
use super::decider::decider;
use super::oracle::ORACLE;
use super::trace::Trace;
use super::worker::Worker;

pub mod scaled_object;
pub mod source;

/// The maximum length of the name of a trace or a policy, in characters.
const MAX_NAME: usize = 60;

/// The maximum of the objective and of the times of a worker.
const MAX_TIME: Period = Period::seconds(24 * 3600);

/// A scenario: every policy runs under every trace.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The latency objective of the jobs.
    pub objective: Objective,
    /// The times of a worker.
    pub worker: WorkerTimes,
    /// Whether the policies are compared with an upper bound of the lowest cost: the cheapest of the oracle, which knows
    /// the trace in advance, of the best constant number of workers, and of the policies. The search takes most of the
    /// time.
    #[serde(default = "yes")]
    pub oracle: bool,
    /// The traces, by name.
    #[schemars(with = "BTreeMap<String, Source>", extend("minProperties" = 1))]
    pub traces: IndexMap<String, Source>,
    /// The policies, by name.
    #[schemars(with = "BTreeMap<String, PolicySettings>", extend("minProperties" = 1))]
    pub policies: IndexMap<String, PolicySettings>,
}

fn yes() -> bool {
    true
}

/// The latency objective: `percentile` percent of the jobs end within `latency` of their arrival.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// The maximum time from arrival to end.
    pub latency: Period,
    /// The share of jobs that must meet it, in percent.
    #[serde(default = "Objective::default_percentile")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percentile: f64,
}

impl Objective {
    fn default_percentile() -> f64 {
        95.0
    }
}

/// The times of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerTimes {
    /// The time from its start until it takes jobs.
    pub cold_start: Period,
    /// The time of a batch that does not depend on its size.
    pub batch_base: Period,
    /// The additional time of each item of a batch.
    pub batch_item: Period,
    /// The maximum number of items of a batch.
    pub batch_limit: NonZeroU32,
    /// The time from the request for a worker until its process starts. The scaler does not see the worker meanwhile.
    #[serde(default)]
    pub provisioning: ProvisioningTime,
    /// Whether a worker estimates its batch times from its own batches, as real workers do. Otherwise the scaler knows
    /// the times above.
    #[serde(default = "yes")]
    pub learns: bool,
    /// The share of workers that load and never become ready, from 0 to 1.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub never_ready: f64,
    /// The mean time until a ready worker crashes and loads again. Default: never.
    pub crashes_after: Option<Period>,
    /// The seed for all random times of workers, and for the phases of KEDA, the HPA and the sampler.
    #[serde(default)]
    pub seed: u64,
}

/// A random time with a log-normal distribution.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProvisioningTime {
    /// The median.
    pub median: Period,
    /// The ratio of the 84th percentile to the median. With 1, every time is the median.
    #[serde(default = "ProvisioningTime::default_spread")]
    #[schemars(range(min = 1.0, max = 10.0))]
    pub spread: f64,
}

impl ProvisioningTime {
    fn default_spread() -> f64 {
        1.0
    }
}

impl Default for ProvisioningTime {
    fn default() -> Self {
        Self { median: Period::default(), spread: 1.0 }
    }
}

impl WorkerTimes {
    /// The same times, for [`super::pool::run`].
    pub fn worker(&self) -> Worker {
        Worker {
            cold_start: self.cold_start.get(),
            batch_base: self.batch_base.get(),
            batch_item: self.batch_item.get(),
            batch_limit: self.batch_limit.get(),
        }
    }

    /// A worker with these times, under conditions that hide nothing from the scaler except the batch times.
    pub fn new(cold_start: Period, batch_base: Period, batch_item: Period, batch_limit: NonZeroU32) -> Self {
        let provisioning = ProvisioningTime::default();
        let (learns, never_ready, crashes_after, seed) = (true, 0.0, None, 0);
        Self { cold_start, batch_base, batch_item, batch_limit, provisioning, learns, never_ready, crashes_after, seed }
    }

    /// The conditions, for [`super::pool::run_under`].
    pub fn conditions(&self) -> Conditions {
        let provisioning = Provisioning { median: self.provisioning.median.get(), spread: self.provisioning.spread };
        Conditions {
            provisioning,
            learns: self.learns,
            never_ready: self.never_ready,
            crashes_after: self.crashes_after.map(Period::get),
            seed: self.seed,
        }
    }
}

/// A policy: the metadata of a ScaledObject's trigger, and the settings of KEDA and the HPA in that object.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// The metadata of the trigger. The key `pool` may be missing.
    pub metadata: BTreeMap<String, String>,
    /// The settings of KEDA and the HPA. Missing keys have their defaults.
    #[serde(default)]
    pub scaled_object: ScaledObject,
}

impl Scenario {
    /// Reads a scenario. An error holds all its faults.
    pub fn read(file: &Path) -> Result<Self, Faults> {
        config::load(&Sources { file: Some(file.to_owned()), ..Sources::default() })
    }

    /// Generates or reads every trace, in the order of the scenario. Paths of files are relative to `folder`, that of
    /// the scenario.
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
        if self.objective.latency.is_zero() || self.objective.latency > MAX_TIME {
            let rule = format!("is not more than 0s and at most {MAX_TIME}");
            faults.refuse("objective.latency", self.objective.latency, rule);
        }
        for (name, period) in [
            ("cold_start", self.worker.cold_start),
            ("batch_base", self.worker.batch_base),
            ("batch_item", self.worker.batch_item),
            ("provisioning.median", self.worker.provisioning.median),
        ] {
            if period > MAX_TIME {
                faults.refuse(format_args!("worker.{name}"), period, format_args!("is not at most {MAX_TIME}"));
            }
        }
        if self.worker.crashes_after.is_some_and(|mean| mean < Period::seconds(1)) {
            faults.refuse("worker.crashes_after", self.worker.crashes_after.unwrap_or_default(), "is not at least 1s");
        }
        if self.objective.percentile <= 0.0 {
            faults.refuse("objective.percentile", self.objective.percentile, "is not more than 0");
        }
        if self.worker.batch_base.is_zero() && self.worker.batch_item.is_zero() {
            faults.refuse(
                "worker.batch_item",
                self.worker.batch_item,
                "with batch_base 0s makes batches without duration",
            );
        }
        for (name, source) in &self.traces {
            let key = format!("traces.{name}");
            // The name becomes part of the name of a file.
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.starts_with('.') || name.len() > MAX_NAME || !name.chars().all(is_allowed) {
                let rule = format!("is not 1 to {MAX_NAME} letters, digits, -, _ and ., the first not a .");
                faults.refuse(&key, format_args!("the name {name:?}"), rule);
            }
            source.check(&key, faults);
        }
        for (name, policy) in &self.policies {
            let key = format!("policies.{name}");
            let length = name.chars().count();
            if length == 0 || length > MAX_NAME || name.chars().any(char::is_control) || name == ORACLE {
                let rule = format!("is not 1 to {MAX_NAME} printable characters other than {ORACLE:?}");
                faults.refuse(&key, format_args!("the name {name:?}"), rule);
            }
            policy.scaled_object.check(&format!("{key}.scaled_object"), faults);
            if let Err(error) = decider(&policy.metadata, policy.scaled_object.rules(), &Conditions::default()) {
                faults.add(format_args!("{key}.metadata.{}", error.key), error.message);
            }
        }
    }
}

#[cfg(test)]
mod tests;
