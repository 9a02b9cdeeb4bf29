//! The source of a trace: a pattern and a seed, or a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use service::{Faults, Period};

use crate::reader::{Format, ReadError, Selection, read};
use crate::trace::{MAX_JOBS, MAX_LENGTH, Pattern, Trace};

/// The keys of sources.
const SOURCES: [&str; 9] =
    ["poisson", "diurnal", "burst", "on_off", "heavy_tailed", "csv", "azure_functions", "azure_llm", "burst_gpt"];

/// The source of a trace: one of the patterns `poisson` to `heavy_tailed`, or one of the files `csv` to `burst_gpt`.
/// Rates are in jobs per second.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Independent arrivals at a constant rate.
    pub poisson: Option<Poisson>,
    /// Independent arrivals at a rate that varies like a day, starting at the lowest rate.
    pub diurnal: Option<Diurnal>,
    /// No arrivals, except for an interval with a high rate.
    pub burst: Option<Burst>,
    /// Phases with a constant rate and phases without arrivals, with random lengths.
    pub on_off: Option<OnOff>,
    /// Groups of jobs whose sizes have a heavy tail: a few groups are most of the work.
    pub heavy_tailed: Option<HeavyTailed>,
    /// A file with the columns `time`, `pool` and `work`. Only the first one is required.
    pub csv: Option<PathBuf>,
    /// A file of the Azure Functions traces of 2019 or 2021.
    pub azure_functions: Option<PathBuf>,
    /// A file of the Azure LLM inference traces of 2023 or 2024.
    pub azure_llm: Option<PathBuf>,
    /// A file of BurstGPT.
    pub burst_gpt: Option<PathBuf>,
    /// The length of the trace. Required for a pattern. A file is cut off there.
    pub length: Option<Period>,
    /// The seed of the random numbers. The same seed gives the same trace.
    #[serde(default = "Source::default_seed")]
    pub seed: u64,
    /// Selects the jobs of this pool (application, function or model) from a file.
    pub pool: Option<String>,
    /// The factor by which the time of a file is shortened.
    #[schemars(range(min = 0.001, max = 1_000_000.0))]
    pub speedup: Option<f64>,
    /// The amount of a job's measure in a file (tokens, seconds, `work`) that is one item of a batch. Without this key
    /// the number of items is `work`, or 1 if the file has no such column.
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

/// Arrivals at a rate that varies like a day.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diurnal {
    /// The mean rate.
    pub mean: f64,
    /// The amplitude, as a share of the mean.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub swing: f64,
    /// The length of a day.
    pub period: Period,
}

/// An interval with a high rate.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// The high rate.
    pub rate: f64,
    /// The beginning of the interval.
    pub from: Period,
    /// The end of the interval.
    pub until: Period,
}

/// Phases with and without arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnOff {
    /// The rate in a phase with arrivals.
    pub rate: f64,
    /// The mean length of a phase with arrivals.
    pub on: Period,
    /// The mean length of a phase without arrivals.
    pub off: Period,
}

/// Groups whose sizes have a heavy tail (Pareto).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeavyTailed {
    /// Groups per second.
    pub groups: f64,
    /// The size of the smallest group, in jobs.
    #[schemars(range(min = 1.0))]
    pub smallest: f64,
    /// The exponent of the tail, above 1. Near 1 the largest groups are most of the work.
    pub shape: f64,
    /// The size of the largest group, in jobs.
    pub largest: f64,
    /// The rate within a group.
    pub rate: f64,
}

impl Source {
    fn default_seed() -> u64 {
        1
    }

    /// Generates or reads the trace. An error comes with the key of its file.
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

    /// Adds the faults of this source, which is the value of `key`.
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        let keys: Vec<_> = self.patterns().map(|(key, _)| key).chain(self.files().map(|(key, ..)| key)).collect();
        match &keys[..] {
            [] => faults.add(key, format_args!("has no source: one of {}", SOURCES.join(", "))),
            [_] => {}
            several => faults.add(key, format_args!("{} are several sources: a trace has one", several.join(", "))),
        }
        if let Some(length) = self.length
            && (length.is_zero() || length.get() > MAX_LENGTH)
        {
            faults.refuse(
                format_args!("{key}.length"),
                length,
                format_args!("is not more than 0s and at most {}", Period::new(MAX_LENGTH)),
            );
        }
        for (name, pattern) in self.patterns() {
            check_pattern(&format!("{key}.{name}"), &pattern, faults);
            let Some(length) = self.length else {
                faults.add(format_args!("{key}.length"), format_args!("is missing, but {name} requires it"));
                continue;
            };
            let jobs = max_rate(&pattern) * length.as_secs_f64();
            if jobs > MAX_JOBS as f64 {
                let rule = format!("makes {jobs:.0} jobs, which is more than {MAX_JOBS}");
                faults.refuse(format_args!("{key}.length"), length, rule);
            }
            let of_files = [
                ("pool", self.pool.is_some()),
                ("speedup", self.speedup.is_some()),
                ("item_size", self.item_size.is_some()),
            ];
            for (other, _) in of_files.into_iter().filter(|(_, is_given)| *is_given) {
                faults.add(format_args!("{key}.{other}"), format_args!("has no meaning with {name}: it is for files"));
            }
        }
    }
}

/// The maximum of the mean rate, in jobs per second.
fn max_rate(pattern: &Pattern) -> f64 {
    match *pattern {
        Pattern::Poisson { rate } | Pattern::Burst { rate, .. } | Pattern::OnOff { rate, .. } => rate,
        Pattern::Diurnal { mean, swing, .. } => mean * (1.0 + swing),
        // The mean size of a Pareto distribution, limited by the largest group.
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
    // With shorter phases the generation of the trace would never end.
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
