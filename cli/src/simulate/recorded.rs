//! A recorded load by itself: what a scenario says otherwise is told by options.

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

/// More pools than that are chosen from.
const MOST_POOLS: usize = 100;

const USUAL_PERCENTILE: f64 = 95.0;

/// The trigger's default.
const USUAL_COLD_START: Period = Period::seconds(60);

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "With a TRACE.csv")]
pub(crate) struct RecordedArgs {
    /// Simulate this pool alone; every pool of the file if not given
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    /// What jobs are promised, from arrival to end, such as 5s; required
    #[arg(long, value_name = "DURATION")]
    pub(super) latency: Option<Period>,
    /// For how many of a hundred jobs; 95 if not given
    #[arg(long, value_name = "PERCENT")]
    pub(super) percentile: Option<f64>,
    /// How long a worker takes until it takes jobs; 60s if not given
    #[arg(long, value_name = "DURATION")]
    pub(super) cold_start: Option<Period>,
    /// What a batch takes, however small it is, such as 7ms; required, since only your model's own curve says anything.
    /// `millrace explain` shows what workers have measured
    #[arg(long, value_name = "DURATION")]
    pub(super) batch_base: Option<Period>,
    /// What each item of a batch takes besides, such as 23ms; required
    #[arg(long, value_name = "DURATION")]
    pub(super) batch_item: Option<Period>,
    /// The most items of a batch, such as 8; required
    #[arg(long, value_name = "ITEMS")]
    pub(super) batch_limit: Option<NonZeroU32>,
}

impl RecordedArgs {
    /// Refuses what only a trace needs, where a scenario says it.
    pub(super) fn refuse_beside(&self, scenario: &Path) -> anyhow::Result<()> {
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
            Some((flag, _, key)) => bail!("{flag}: is for a TRACE.csv; in {} it is {key}", scenario.display()),
            None => Ok(()),
        }
    }

    /// What is simulated under the trace in this file, each of its pools by itself.
    pub(super) fn scenario(&self, file: &Path) -> anyhow::Result<Scenario> {
        let (objective, worker) = self.told()?;
        let pools = match &self.pool {
            Some(pool) => vec![Some(pool.clone())],
            None => pools(file)?,
        };
        let name = |pool: &Option<String>| match pool.as_deref() {
            // Rows without a pool, beside others that have one.
            Some("") => "-".to_owned(),
            Some(pool) => pool.to_owned(),
            None => "all".to_owned(),
        };
        let source = |pool| Source { csv: file.file_name().map(Into::into), pool, ..Source::default() };
        let traces = pools.into_iter().map(|pool| (name(&pool), source(pool))).collect();
        let policies = policies(objective, worker).into_iter().collect();
        let scenario = Scenario { objective, worker, oracle: true, traces, policies };
        let mut faults = Faults::default();
        scenario.check(&mut faults);
        if faults.is_empty() { Ok(scenario) } else { Err(anyhow!("{}", in_options(&faults, file))) }
    }

    /// What was assumed, since nobody said it.
    pub(super) fn assumed(&self) -> String {
        let mut assumed = Vec::new();
        if self.percentile.is_none() {
            assumed.push(format!("--percentile {USUAL_PERCENTILE}"));
        }
        if self.cold_start.is_none() {
            assumed.push(format!("--cold-start {USUAL_COLD_START}"));
        }
        assumed.push("a job without work is 1 item".to_owned());
        assumed.push("at most 100 workers".to_owned());
        assumed.push("backlog: 10 jobs per worker, KEDA's and the HPA's defaults".to_owned());
        assumed.push("latency: KEDA and the HPA follow at once".to_owned());
        format!("assumed: {}", assumed.join("; "))
    }

    fn told(&self) -> anyhow::Result<(Objective, WorkerTimes)> {
        let mut faults = Faults::default();
        let mut required = |flag: &str, is_given: bool, why: &dyn Display| {
            if !is_given {
                faults.add(flag, format_args!("is missing: a TRACE.csv does not say {why}"));
            }
        };
        required("--latency", self.latency.is_some(), &"what jobs are promised");
        required("--batch-base", self.batch_base.is_some(), &"what a batch takes, however small it is");
        required("--batch-item", self.batch_item.is_some(), &"what each item of a batch takes besides");
        required("--batch-limit", self.batch_limit.is_some(), &"how many items a batch has at most");
        let (Some(latency), Some(batch_base), Some(batch_item), Some(batch_limit)) =
            (self.latency, self.batch_base, self.batch_item, self.batch_limit)
        else {
            bail!("{faults}");
        };
        let percentile = self.percentile.unwrap_or(USUAL_PERCENTILE);
        let cold_start = self.cold_start.unwrap_or(USUAL_COLD_START);
        let worker = WorkerTimes { cold_start, batch_base, batch_item, batch_limit };
        Ok((Objective { latency, percentile }, worker))
    }
}

/// The pools of a file, in the order in which they first appear; one without a name where no column has any.
fn pools(file: &Path) -> anyhow::Result<Vec<Option<String>>> {
    let pools = reader::pools(file)?;
    if pools.len() > MOST_POOLS {
        bail!("{}: has {} pools, more than {MOST_POOLS}; choose one by --pool", file.display(), pools.len());
    }
    Ok(if pools.is_empty() { vec![None] } else { pools.into_iter().map(Some).collect() })
}

/// The modes without anything to tune, each behind KEDA and the HPA as it is meant to be.
fn policies(objective: Objective, worker: WorkerTimes) -> [(String, PolicySettings); 2] {
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
        // One that takes no time has none to tell of before it is measured.
        ("coldStart", worker.cold_start.max(Period::millis(1)).to_string()),
    ];
    // KEDA and the HPA follow at once, as deploy/keda/latency.yaml has them do.
    let policies = vec![ScalingPolicy { r#type: PolicyType::Pods, value: 100, period_seconds: 15 }];
    let scale_up = ScalingRules { policies: Some(policies), ..ScalingRules::default() };
    let scale_down = ScalingRules { stabilization_window_seconds: Some(0), ..ScalingRules::default() };
    let behavior = Behavior { scale_up, scale_down };
    let follows = ScaledObject { polling_interval: 15, behavior, ..ScaledObject::default() };
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

/// What is wrong with the rows of the file: once, though every pool of it meets the same, under a key that nobody wrote.
pub(super) fn of_rows(faults: &Faults) -> anyhow::Error {
    let rows = faults.iter().map(|fault| {
        let text = fault.to_string();
        text.split_once(".csv: ")
            .filter(|(key, _)| key.starts_with("traces."))
            .map_or(text.clone(), |(_, row)| row.to_owned())
    });
    anyhow!("{}", rows.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("\n"))
}

/// The faults of a scenario that nobody wrote, under the names of the options and the file.
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
