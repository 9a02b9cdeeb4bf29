//! A recorded load without a scenario: options replace the scenario's settings.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{anyhow, bail};
use clap::Args;
use service::{Config, Faults, Period};
use simulator::reader;
use simulator::scenario::scaled_object::{Behavior, PolicyType, ScalingPolicy, ScalingRules};
use simulator::scenario::{Objective, PolicySettings, ScaledObject, Scenario, Source, WorkerTimes};

/// A file with more pools needs `--pool`.
const MAX_POOLS: usize = 100;

const DEFAULT_PERCENTILE: f64 = 95.0;

/// The default of the trigger.
const DEFAULT_COLD_START: Period = Period::seconds(60);

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "With a TRACE.csv")]
pub(crate) struct RecordedArgs {
    /// Simulate only this pool [default: every pool of the file]
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    /// The objective: the time from arrival to end that jobs are promised, such as 5s; required
    #[arg(long, value_name = "DURATION")]
    pub(super) latency: Option<Period>,
    /// The share of jobs for which the objective holds, in percent [default: 95]
    #[arg(long, value_name = "PERCENT")]
    pub(super) percentile: Option<f64>,
    /// The time from the start of a worker to its first job [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub(super) cold_start: Option<Period>,
    /// The fixed part of the batch time, such as 7ms; required. `millrace explain` shows the times that the workers of a
    /// pool measured
    #[arg(long, value_name = "DURATION")]
    pub(super) batch_base: Option<Period>,
    /// The batch time per item, such as 23ms; required
    #[arg(long, value_name = "DURATION")]
    pub(super) batch_item: Option<Period>,
    /// The largest number of items in a batch, such as 8; required
    #[arg(long, value_name = "ITEMS")]
    pub(super) batch_limit: Option<NonZeroU32>,
}

impl RecordedArgs {
    /// Refuses the options of a recorded load beside a scenario, which has settings of its own.
    pub(super) fn refuse_with_scenario(&self, scenario: &Path) -> anyhow::Result<()> {
        let given = [
            ("--pool", self.pool.is_some(), "traces.NAME.pool"),
            ("--latency", self.latency.is_some(), "objective.latency"),
            ("--percentile", self.percentile.is_some(), "objective.percentile"),
            ("--cold-start", self.cold_start.is_some(), "worker.cold_start"),
            ("--batch-base", self.batch_base.is_some(), "worker.batch_base"),
            ("--batch-item", self.batch_item.is_some(), "worker.batch_item"),
            ("--batch-limit", self.batch_limit.is_some(), "worker.batch_limit"),
        ];
        match given.into_iter().find(|(_, is_given, _)| *is_given) {
            Some((flag, _, key)) => bail!("{flag}: is for a TRACE.csv; in {} use the key {key}", scenario.display()),
            None => Ok(()),
        }
    }

    /// The scenario for this file. Each pool of the file is a trace of its own.
    pub(super) fn scenario(&self, file: &Path) -> anyhow::Result<Scenario> {
        let (objective, worker) = self.required()?;
        let pools = match &self.pool {
            Some(pool) => vec![Some(pool.clone())],
            None => pools(file)?,
        };
        let name = |pool: &Option<String>| match pool.as_deref() {
            // The name for rows with an empty pool, in a file in which other rows have a pool.
            Some("") => "-".to_owned(),
            Some(pool) => pool.to_owned(),
            None => "all".to_owned(),
        };
        let source = |pool| Source { csv: file.file_name().map(Into::into), pool, ..Source::default() };
        let traces = pools.into_iter().map(|pool| (name(&pool), source(pool))).collect();
        let policies = policies(objective).into_iter().collect();
        let scenario = Scenario { objective, worker, oracle: true, traces, policies };
        let mut faults = Faults::default();
        scenario.check(&mut faults);
        if faults.is_empty() { Ok(scenario) } else { Err(anyhow!("{}", in_options(&faults, file))) }
    }

    /// The assumptions in place of options that were not given.
    pub(super) fn assumptions(&self) -> String {
        let mut assumptions = Vec::new();
        if self.percentile.is_none() {
            assumptions.push(format!("--percentile {DEFAULT_PERCENTILE}"));
        }
        if self.cold_start.is_none() {
            assumptions.push(format!("--cold-start {DEFAULT_COLD_START}"));
        }
        assumptions.push("a job without work is 1 item".to_owned());
        assumptions.push("at most 100 workers".to_owned());
        assumptions.push("backlog: 10 jobs per worker, and the defaults of KEDA and the HPA".to_owned());
        assumptions.push("latency: KEDA and the HPA follow at once".to_owned());
        format!("assumed: {}", assumptions.join("; "))
    }

    /// The objective and the worker times from the options. Missing options are faults, except those with a default.
    fn required(&self) -> anyhow::Result<(Objective, WorkerTimes)> {
        let mut faults = Faults::default();
        let mut require = |flag: &str, is_given: bool, what: &str| {
            if !is_given {
                faults.add(flag, format_args!("is missing: a TRACE.csv does not contain {what}"));
            }
        };
        require("--latency", self.latency.is_some(), "the objective");
        require("--batch-base", self.batch_base.is_some(), "the fixed part of the batch time");
        require("--batch-item", self.batch_item.is_some(), "the batch time per item");
        require("--batch-limit", self.batch_limit.is_some(), "the largest number of items in a batch");
        let (Some(latency), Some(batch_base), Some(batch_item), Some(batch_limit)) =
            (self.latency, self.batch_base, self.batch_item, self.batch_limit)
        else {
            bail!("{faults}");
        };
        let percentile = self.percentile.unwrap_or(DEFAULT_PERCENTILE);
        let cold_start = self.cold_start.unwrap_or(DEFAULT_COLD_START);
        let worker = WorkerTimes::new(cold_start, batch_base, batch_item, batch_limit);
        Ok((Objective { latency, percentile }, worker))
    }
}

/// The pools of a file, in the order of their first rows. A file without the column has one pool without a name.
fn pools(file: &Path) -> anyhow::Result<Vec<Option<String>>> {
    let pools = reader::pools(file)?;
    if pools.len() > MAX_POOLS {
        bail!("{}: has {} pools, more than {MAX_POOLS}; choose one with --pool", file.display(), pools.len());
    }
    Ok(if pools.is_empty() { vec![None] } else { pools.into_iter().map(Some).collect() })
}

/// The modes that need no tuning, each with the settings of KEDA and the HPA that are recommended for it.
fn policies(objective: Objective) -> [(String, PolicySettings); 2] {
    let metadata = |pairs: &[(&str, String)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let latency = [
        ("mode", "latency".to_owned()),
        ("latency", objective.latency.to_string()),
        ("percentile", objective.percentile.to_string()),
    ];
    // KEDA and the HPA follow at once, as in deploy/keda/latency.yaml.
    let policies = vec![ScalingPolicy { r#type: PolicyType::Pods, value: 100, period_seconds: 15 }];
    let scale_up = ScalingRules { policies: Some(policies), ..ScalingRules::default() };
    let scale_down = ScalingRules { stabilization_window_seconds: Some(0), ..ScalingRules::default() };
    let behavior = Behavior { scale_up, scale_down };
    let follows =
        ScaledObject { polling_interval: 15, cooldown_period: 30, behavior: Some(behavior), ..ScaledObject::default() };
    [
        ("latency".to_owned(), PolicySettings { metadata: metadata(&latency), scaled_object: follows }),
        (
            "backlog".to_owned(),
            PolicySettings {
                metadata: metadata(&[("mode", "backlog".to_owned())]),
                scaled_object: ScaledObject::default(),
            },
        ),
    ]
}

/// The faults in the rows of the file, each once. Every pool reports the same rows, under a key that is not in the file.
pub(super) fn row_faults(faults: &Faults) -> anyhow::Error {
    let rows = faults.iter().map(|fault| {
        let text = fault.to_string();
        text.split_once(".csv: ")
            .filter(|(key, _)| key.starts_with("traces."))
            .map_or(text.clone(), |(_, row)| row.to_owned())
    });
    anyhow!("{}", rows.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("\n"))
}

/// Renames the faults of the scenario to the options and the file, because the user wrote no scenario.
fn in_options(faults: &Faults, file: &Path) -> String {
    let line = |fault: &dyn Display| {
        let text = fault.to_string();
        let options = [
            ("objective.latency", "--latency"),
            ("objective.percentile", "--percentile"),
            ("policies.latency.metadata.percentile", "--percentile"),
            ("worker.cold_start", "--cold-start"),
            ("worker.batch_base", "--batch-base"),
            ("worker.batch_item", "--batch-item"),
            ("worker.batch_limit", "--batch-limit"),
        ];
        let renamed = options.iter().find_map(|(key, flag)| Some(format!("{flag}{}", text.strip_prefix(key)?)));
        renamed.unwrap_or_else(|| match text.strip_prefix("traces.") {
            Some(of_pool) => format!("{}: pool {of_pool}", file.display()),
            None => text,
        })
    };
    let lines: Vec<String> = faults.iter().map(|fault| line(fault)).collect();
    lines.join("\n")
}
