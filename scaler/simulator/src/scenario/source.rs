//! Where a trace comes from: a pattern and a seed, or a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use service::{Faults, Period};

use crate::reader::{Format, ReadError, Selection, read};
use crate::trace::{LONGEST, MOST_JOBS, Pattern, Trace};

/// The keys that name one.
const SOURCES: [&str; 9] =
    ["poisson", "diurnal", "burst", "on_off", "heavy_tailed", "csv", "azure_functions", "azure_llm", "burst_gpt"];

/// Where a trace comes from: one of the patterns `poisson` to `heavy_tailed`, whose rates are jobs per second, or one
/// of the files `csv` to `burst_gpt`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Jobs arrive independently, at a constant rate.
    pub poisson: Option<Poisson>,
    /// Jobs arrive independently, at a rate that goes up and down like a day, from its lowest.
    pub diurnal: Option<Diurnal>,
    /// No jobs, and from one second to the next many.
    pub burst: Option<Burst>,
    /// Turns of a constant rate and of nothing, each as long as chance has it.
    pub on_off: Option<OnOff>,
    /// Groups whose sizes have a heavy tail: few of them are most of the work.
    pub heavy_tailed: Option<HeavyTailed>,
    /// A file with the columns `time`, `pool` and `work`, of which only the first must be there.
    pub csv: Option<PathBuf>,
    /// A file of the Azure Functions traces of 2019 or 2021.
    pub azure_functions: Option<PathBuf>,
    /// A file of the Azure LLM inference traces of 2023 or 2024.
    pub azure_llm: Option<PathBuf>,
    /// A file of BurstGPT.
    pub burst_gpt: Option<PathBuf>,
    /// How long it is; a pattern must have it, a file is cut off there.
    pub length: Option<Period>,
    /// What chance begins with: the same seed makes the same trace.
    #[serde(default = "Source::usual_seed")]
    pub seed: u64,
    /// Of a file, only the jobs of this pool (application, function or model).
    pub pool: Option<String>,
    /// A file's time passes so many times as fast.
    #[schemars(range(min = 0.001, max = 1_000_000.0))]
    pub speedup: Option<f64>,
    /// How much of what a file measures of a job (tokens, seconds, `work`) is one item of a batch. Without it each job
    /// is one item, or as many as `work` says.
    #[schemars(range(min = 0.001))]
    pub item_size: Option<f64>,
}

/// Arrivals at a constant rate.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Poisson {
    /// The rate.
    pub rate: f64,
}

/// Arrivals at a rate that swings.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diurnal {
    /// The mean rate.
    pub mean: f64,
    /// How far the rate swings, as a share of the mean.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub swing: f64,
    /// How long a day is.
    pub period: Period,
}

/// Nothing, and then much.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// The high rate.
    pub rate: f64,
    /// When it begins.
    pub from: Period,
    /// When it ends.
    pub until: Period,
}

/// Turns of a constant rate and of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnOff {
    /// The rate of a turn.
    pub rate: f64,
    /// How long a turn is on average.
    pub on: Period,
    /// How long nothing comes on average.
    pub off: Period,
}

/// Groups whose sizes have a heavy tail (Pareto).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeavyTailed {
    /// Groups per second.
    pub groups: f64,
    /// The smallest group, in jobs.
    #[schemars(range(min = 1.0))]
    pub smallest: f64,
    /// The tail's exponent, above 1; near 1 the largest groups are most of the work.
    pub shape: f64,
    /// The largest group, in jobs.
    pub largest: f64,
    /// The rate within a group.
    pub rate: f64,
}

impl Source {
    fn usual_seed() -> u64 {
        1
    }

    /// Makes or reads the trace. The error comes with the key of the file that it is about.
    pub(super) fn load(&self, folder: &Path) -> Result<Trace, (&'static str, ReadError)> {
        if let Some((_, pattern)) = self.patterns().next() {
            return Ok(pattern.trace(self.length.unwrap_or_default().get(), self.seed));
        }
        let Some((key, format, file)) = self.files().next() else {
            return Ok(Trace { jobs: Vec::new(), length: Duration::ZERO });
        };
        let selection = Selection {
            pool: self.pool.as_deref(),
            item_size: self.item_size,
            speedup: self.speedup.unwrap_or(1.0),
            length: self.length.map(Period::get),
            seed: self.seed,
        };
        read(&folder.join(file), format, &selection).map_err(|error| (key, error))
    }

    fn patterns(&self) -> impl Iterator<Item = (&'static str, Pattern)> {
        let poisson = self.poisson.map(|given| Pattern::Poisson { rate: given.rate });
        let diurnal = self.diurnal.map(|given| {
            let (mean, swing) = (given.mean, given.swing);
            Pattern::Diurnal { mean, swing, period: given.period.get() }
        });
        let burst = self.burst.map(|given| {
            let (from, until) = (given.from.get(), given.until.get());
            Pattern::Burst { rate: given.rate, from, until }
        });
        let on_off = self.on_off.map(|given| {
            let (on, off) = (given.on.get(), given.off.get());
            Pattern::OnOff { rate: given.rate, on, off }
        });
        let heavy_tailed = self.heavy_tailed.map(|given| {
            let HeavyTailed { groups, smallest, shape, largest, rate } = given;
            Pattern::HeavyTailed { groups, smallest, shape, largest, rate }
        });
        let given = [
            ("poisson", poisson),
            ("diurnal", diurnal),
            ("burst", burst),
            ("on_off", on_off),
            ("heavy_tailed", heavy_tailed),
        ];
        given.into_iter().filter_map(|(key, pattern)| Some((key, pattern?)))
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, Format, &Path)> {
        let given = [
            ("csv", Format::Own, &self.csv),
            ("azure_functions", Format::AzureFunctions, &self.azure_functions),
            ("azure_llm", Format::AzureLlm, &self.azure_llm),
            ("burst_gpt", Format::BurstGpt, &self.burst_gpt),
        ];
        given.into_iter().filter_map(|(key, format, file)| Some((key, format, file.as_deref()?)))
    }

    /// Adds what is wrong with this, which stands under `key`.
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        let keys: Vec<_> = self.patterns().map(|(key, _)| key).chain(self.files().map(|(key, ..)| key)).collect();
        match &keys[..] {
            [] => faults.add(key, format_args!("names no source: one of {}", SOURCES.join(", "))),
            [_] => {}
            several => faults.add(key, format_args!("{} are several sources: a trace has one", several.join(", "))),
        }
        if let Some(length) = self.length
            && (length.is_zero() || length.get() > LONGEST)
        {
            faults.refuse(
                format_args!("{key}.length"),
                length,
                format_args!("is not more than 0s and at most {}", Period::new(LONGEST)),
            );
        }
        for (name, pattern) in self.patterns() {
            check_pattern(&format!("{key}.{name}"), &pattern, faults);
            let Some(length) = self.length else {
                faults.add(format_args!("{key}.length"), format_args!("is missing, which {name} must have"));
                continue;
            };
            let jobs = most_per_second(&pattern) * length.as_secs_f64();
            if jobs > MOST_JOBS as f64 {
                let rule = format!("makes {jobs:.0} jobs, which is more than {MOST_JOBS}");
                faults.refuse(format_args!("{key}.length"), length, rule);
            }
            let of_files = [
                ("pool", self.pool.is_some()),
                ("speedup", self.speedup.is_some()),
                ("item_size", self.item_size.is_some()),
            ];
            for (other, _) in of_files.into_iter().filter(|(_, is_given)| *is_given) {
                faults
                    .add(format_args!("{key}.{other}"), format_args!("has no meaning beside {name}: it is for files"));
            }
        }
    }
}

/// Jobs per second at most, on average.
fn most_per_second(pattern: &Pattern) -> f64 {
    match *pattern {
        Pattern::Poisson { rate } | Pattern::Burst { rate, .. } | Pattern::OnOff { rate, .. } => rate,
        Pattern::Diurnal { mean, swing, .. } => mean * (1.0 + swing),
        // The mean of a Pareto distribution, which the largest group bounds.
        Pattern::HeavyTailed { groups, smallest, shape, largest, .. } => {
            groups * (shape * smallest / (shape - 1.0).max(f64::MIN_POSITIVE)).min(largest)
        }
    }
}

fn check_pattern(key: &str, pattern: &Pattern, faults: &mut Faults) {
    let mut positive = |name: &str, value: f64| {
        if value <= 0.0 {
            faults.refuse(format_args!("{key}.{name}"), value, "is not more than 0");
        }
    };
    match *pattern {
        Pattern::Poisson { rate } | Pattern::Burst { rate, .. } | Pattern::OnOff { rate, .. } => positive("rate", rate),
        Pattern::Diurnal { mean, .. } => positive("mean", mean),
        Pattern::HeavyTailed { groups, rate, .. } => {
            positive("groups", groups);
            positive("rate", rate);
        }
    }
    // Shorter turns would never end.
    let mut lasting = |name: &str, value: Duration| {
        if value < Duration::from_secs(1) {
            faults.refuse(format_args!("{key}.{name}"), Period::new(value), "is not at least 1s");
        }
    };
    match *pattern {
        Pattern::Diurnal { period, .. } => lasting("period", period),
        Pattern::OnOff { on, off, .. } => {
            lasting("on", on);
            lasting("off", off);
        }
        Pattern::Burst { from, until, .. } if until <= from => {
            let rule = format!("is not after from, {}", Period::new(from));
            faults.refuse(format_args!("{key}.until"), Period::new(until), rule);
        }
        Pattern::HeavyTailed { smallest, shape, largest, .. } => {
            if shape <= 1.0 {
                faults.refuse(format_args!("{key}.shape"), shape, "is not more than 1");
            }
            if largest < smallest {
                faults.refuse(
                    format_args!("{key}.largest"),
                    largest,
                    format_args!("is not at least smallest, {smallest}"),
                );
            }
        }
        _ => {}
    }
}
