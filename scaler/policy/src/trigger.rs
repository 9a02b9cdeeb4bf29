//! The vocabulary of a trigger: the metadata keys of a ScaledObject.
//!
//! | key | mode | meaning; default |
//! |---|---|---|
//! | `pool` | | the pool to scale; required |
//! | `mode` | | `backlog`, `latency` or `rate`; `backlog` |
//! | `value`, `lagThreshold`, `queueLength` | backlog | jobs of backlog per worker, at least 0.001; 10 |
//! | `excludeInFlight` | backlog | `true`: jobs that workers hold do not count; `false` |
//! | `classes` | backlog | the classes whose waiting jobs count, separated by commas; all |
//! | `latency` | latency | how long a job may take, from its arrival to its end: `5s`, or by class, `premium 2s, standard 10s, batch none`; required |
//! | `percentile` | latency | the share of jobs that must meet `latency`, in percent; 95 |
//! | `coldStart` | latency | the least cold start that is assumed, where workers measure too little of it; what they measure |
//! | `keepWarm` | latency | the maximum number of workers that are kept while no jobs arrive: `auto`, or a number; `auto` |
//! | `maxWorkerHoursPerDay` | latency | what keeping workers may cost, in worker-hours per day; no limit |
//! | `stableWindow` | rate | the window over which arrivals are averaged; 60s |
//! | `panicWindow`, `stableWindow`, `scaleDownDelay`, `forecast` | latency | deprecated, without effect |
//! | `tolerance` | latency | the HPA's tolerance: a rise is made large enough to exceed it; 0.1 |
//! | `jobsPerSecond` | rate | jobs per second that one worker serves, at least 0.001; required |
//! | `activationValue`, `activationLagThreshold` | | a backlog above this number of jobs starts the first worker; 0 |
//! | `minWorkers`, `maxWorkers` | | the minimum and the maximum number of workers; 0 and no limit |
//! | `schedule` | | minimum numbers of workers at certain times, see [`crate::schedule`]; none |
//! | `allowIdleConsumers` | | `true`: more workers than Kafka has partitions are allowed; `false` |
//!
//! Each key may also have the suffix `FromEnv`. KEDA sends such a key with the value of the environment variable, so `kFromEnv`
//! is another name of `k`. A pool's configured trigger has no such keys.
//!
//! Other keys are ignored, because KEDA sends the whole map including its own `scalerAddress`. A key that is missing
//! from the metadata has the value from the pool's configuration.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use queue::{Class, PoolName};
use service::Period;

use crate::backlog::Backlog;
use crate::history::LONGEST_WINDOW;
use crate::latency::Latency;
use crate::rate::Rate;
use crate::scaling::{Mode, Scaling};
use crate::schedule::Schedule;

/// The metadata key that names the pool.
pub const POOL_KEY: &str = "pool";

/// Kubernetes transfers a metric with three decimals, so a smaller target would arrive as 0.
const MIN_TARGET: f64 = 0.001;

/// With this target and the maximum number of workers, the metric is still an exact number.
const MAX_TARGET: f64 = 1e12;

/// The largest accepted number of workers.
const MAX_WORKERS: f64 = 1e6;

/// The longest accepted latency and cold start.
const MAX_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// All keys but `pool`, each with its other names and its modes (none: every mode).
const KEYS: [(&str, &[&str], &[&str]); 17] = [
    ("mode", &[], &[]),
    ("value", &["lagThreshold", "queueLength"], &["backlog"]),
    ("excludeInFlight", &[], &["backlog"]),
    ("classes", &[], &["backlog"]),
    ("latency", &[], &["latency"]),
    ("percentile", &[], &["latency"]),
    ("stableWindow", &[], &["rate", "latency"]),
    ("coldStart", &[], &["latency"]),
    ("keepWarm", &[], &["latency"]),
    ("maxWorkerHoursPerDay", &[], &["latency"]),
    ("tolerance", &[], &["latency"]),
    ("jobsPerSecond", &[], &["rate"]),
    ("activationValue", &["activationLagThreshold"], &[]),
    ("minWorkers", &[], &[]),
    ("maxWorkers", &[], &[]),
    ("schedule", &[], &[]),
    ("allowIdleConsumers", &[], &[]),
];

/// Keys of mode latency that were settings of an earlier version. They have no effect.
const DEPRECATED: [&str; 4] = ["panicWindow", "stableWindow", "scaleDownDelay", "forecast"];

/// The suffix of a key whose value KEDA takes from an environment variable of the workload.
const ENVIRONMENT_SUFFIX: &str = "FromEnv";

/// Whether `name` is a key that a pool's configured trigger can have. In a configured trigger an unknown key is an
/// error.
pub fn is_trigger_key(name: &str) -> bool {
    DEPRECATED.contains(&name) || KEYS.iter().any(|(key, others, _)| *key == name || others.contains(&name))
}

/// The keys of a configured trigger that have no effect any more.
pub fn deprecated_keys(trigger: &BTreeMap<String, String>) -> Vec<&str> {
    let is_rate = trigger.get("mode").is_some_and(|mode| mode == "rate");
    let has_no_effect = |key: &str| DEPRECATED.contains(&key) && !(is_rate && key == "stableWindow");
    trigger.keys().map(String::as_str).filter(|key| has_no_effect(key)).collect()
}

/// The name of a pool's metric. It is constant, because the HPA stores it.
///
/// A pool's name is a DNS label. So the name has at most 72 characters, without `/` and `%`.
pub fn metric_name(pool: &PoolName) -> String {
    format!("millrace-{pool}")
}

/// A valid trigger.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// The pool.
    pub pool: PoolName,
    /// The rule by which it is scaled.
    pub scaling: Scaling,
}

/// An invalid trigger. KEDA copies the message into Kubernetes events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct TriggerError {
    /// The invalid key, by the name that the metadata has for it.
    pub key: String,
    /// The value, and the rule that it breaks.
    pub message: String,
}

impl TriggerError {
    fn new(key: &str, message: impl Display) -> Self {
        Self { key: key.to_owned(), message: message.to_string() }
    }
}

impl Trigger {
    /// Parses the metadata of a ScaledObject. Missing keys have the values of the pool's configured trigger.
    ///
    /// `configured` returns the configured trigger of a pool. `None`: there is no such pool.
    pub fn read<'a>(
        metadata: &HashMap<String, String>,
        configured: impl Fn(&PoolName) -> Option<&'a BTreeMap<String, String>>,
    ) -> Result<Self, TriggerError> {
        let own = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let Some(GivenValue { name: key, value: name }) = GivenValue::find(&own, POOL_KEY, &[])? else {
            return Err(TriggerError::new(POOL_KEY, "is missing from the trigger's metadata"));
        };
        let pool: PoolName = name.parse().map_err(|error: queue::Error| {
            // The error of a name already begins with this key.
            let text = error.to_string();
            TriggerError::new(key, text.strip_prefix("pool: ").unwrap_or(&text))
        })?;
        let Some(defaults) = configured(&pool) else {
            return Err(TriggerError::new(key, format_args!("{} is not a pool of this scaler", shown(name))));
        };
        let defaults = defaults.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let scaling = Scaling::read([own, defaults.collect()])?;
        Ok(Self { pool, scaling })
    }
}

impl Scaling {
    /// Parses the metadata of a trigger.
    pub fn of_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, TriggerError> {
        Self::read([metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(), BTreeMap::new()])
    }

    /// Parses two maps. The second one has the values of keys that are missing from the first.
    fn read([own, defaults]: [BTreeMap<&str, &str>; 2]) -> Result<Self, TriggerError> {
        let (own, mut defaults) = (KeyMap::read(own)?, KeyMap::read(defaults)?);
        let mode = own.0.get("mode").or(defaults.0.get("mode")).map_or("backlog", |given| given.value);
        own.check_mode(mode)?;
        if defaults.0.get("mode").map_or("backlog", |given| given.value) == mode {
            defaults.check_mode(mode)?;
        } else {
            // The trigger has another mode than the pool's configuration, so the keys of the configured mode do not
            // apply.
            defaults.0.retain(|key, _| KEYS.iter().any(|(name, _, modes)| name == key && modes.is_empty()));
        }
        let keys = LayeredKeys([own, defaults]);
        let scaling = Self {
            mode: keys.mode(mode)?,
            activation: keys.number("activationValue", 0.0, f64::MAX)?.unwrap_or(0.0),
            min: keys.workers("minWorkers")?.unwrap_or(0),
            max: keys.workers("maxWorkers")?,
            allows_idle_consumers: keys.flag("allowIdleConsumers")?,
            schedule: keys.parsed::<Schedule>("schedule")?.unwrap_or_default(),
            tolerance: keys.number("tolerance", 0.0, 1.0)?.unwrap_or(0.1),
        };
        if let Some(max) = scaling.max {
            if max == 0 {
                return Err(keys.reject("maxWorkers", "is not at least 1"));
            }
            if scaling.min > max {
                return Err(keys.reject("minWorkers", format_args!("is more than maxWorkers, {max}")));
            }
            if scaling.schedule.0.iter().any(|floor| floor.workers > max) {
                return Err(keys.reject("schedule", format_args!("asks for more than maxWorkers, {max}")));
            }
        }
        Ok(scaling)
    }
}

/// A value, and the name of its key in the metadata.
#[derive(Clone, Copy)]
struct GivenValue<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'a> GivenValue<'a> {
    /// The value of a key under any of its names. An empty value counts as missing. Two different values are an error.
    fn find(metadata: &BTreeMap<&'a str, &'a str>, key: &str, others: &[&str]) -> Result<Option<Self>, TriggerError> {
        let mut first: Option<Self> = None;
        for name in [key].iter().chain(others) {
            for name in [(*name).to_owned(), format!("{name}{ENVIRONMENT_SUFFIX}")] {
                let Some((name, value)) = metadata.get_key_value(name.as_str()) else { continue };
                let given = Self { name, value: value.trim() };
                if given.value.is_empty() {
                    continue;
                }
                if let Some(first) = first
                    && first.value != given.value
                {
                    let (one, other) = (shown(given.value), shown(first.value));
                    return Err(TriggerError::new(name, format_args!("{one} contradicts {}, {other}", first.name)));
                }
                first = first.or(Some(given));
            }
        }
        Ok(first)
    }
}

/// The known keys of one map, by their first names. An empty value counts as missing.
struct KeyMap<'a>(BTreeMap<&'static str, GivenValue<'a>>);

impl<'a> KeyMap<'a> {
    fn read(metadata: BTreeMap<&'a str, &'a str>) -> Result<Self, TriggerError> {
        let mut keys = BTreeMap::new();
        for (key, others, _) in KEYS {
            if let Some(named) = GivenValue::find(&metadata, key, others)? {
                keys.insert(key, named);
            }
        }
        Ok(Self(keys))
    }

    /// Rejects keys of other modes than `mode`.
    fn check_mode(&self, mode: &str) -> Result<(), TriggerError> {
        for (key, _, modes) in KEYS {
            if let Some(GivenValue { name, value }) = self.0.get(key)
                && !modes.is_empty()
                && !modes.contains(&mode)
                && ["backlog", "latency", "rate"].contains(&mode)
            {
                let value = shown(value);
                let rule = format_args!("{value} is for mode {}, not {mode}", modes.join(" and "));
                return Err(TriggerError::new(name, rule));
            }
        }
        Ok(())
    }
}

/// The maps in which a key is looked up, in this order.
struct LayeredKeys<'a>([KeyMap<'a>; 2]);

impl<'a> LayeredKeys<'a> {
    fn get(&self, key: &str) -> Option<GivenValue<'a>> {
        self.0.iter().find_map(|map| map.0.get(key)).copied()
    }

    fn reject(&self, key: &'static str, rule: impl Display) -> TriggerError {
        match self.get(key) {
            Some(GivenValue { name, value }) => TriggerError::new(name, format_args!("{} {rule}", shown(value))),
            None => TriggerError::new(key, rule),
        }
    }

    fn mode(&self, mode: &str) -> Result<Mode, TriggerError> {
        match mode {
            "backlog" => Ok(Mode::Backlog(Backlog {
                per_worker: self.number("value", MIN_TARGET, MAX_TARGET)?.unwrap_or(10.0),
                excludes_in_flight: self.flag("excludeInFlight")?,
                classes: self.classes()?,
            })),
            "latency" => self.latency().map(Mode::Latency),
            "rate" => Ok(Mode::Rate(Rate {
                per_worker: self
                    .number("jobsPerSecond", MIN_TARGET, MAX_TARGET)?
                    .ok_or_else(|| self.reject("jobsPerSecond", "is missing, and mode rate needs it"))?,
                window: self.window("stableWindow", Duration::from_secs(60))?,
            })),
            _ => Err(self.reject("mode", "is not backlog, latency or rate")),
        }
    }

    fn latency(&self) -> Result<Latency, TriggerError> {
        Ok(Latency {
            objectives: self.objectives()?,
            percentile: self.number("percentile", 50.0, 99.99)?.unwrap_or(95.0),
            cold_start: self.period("coldStart", MAX_PERIOD)?,
            keep_warm: match self.get("keepWarm").map(|given| given.value) {
                None | Some("auto") => None,
                Some(_) => self.workers("keepWarm").map_err(|_| {
                    self.reject("keepWarm", format_args!("is not auto or a whole number from 0 to {MAX_WORKERS}"))
                })?,
            },
            max_worker_hours_per_day: self.number("maxWorkerHoursPerDay", 0.0, 24.0 * MAX_WORKERS)?,
        })
    }

    /// The objective of each class: one for all, or one for each class that is named. Other classes have none.
    fn objectives(&self) -> Result<[Option<Duration>; 3], TriggerError> {
        let given =
            self.get("latency").ok_or_else(|| self.reject("latency", "is missing, and mode latency needs it"))?;
        let parse = |text: &str| {
            let period = text.parse::<Period>().ok().map(|period| period.get());
            period.filter(|period| !period.is_zero() && *period <= MAX_PERIOD)
        };
        if let Some(objective) = parse(given.value) {
            return Ok([Some(objective); 3]);
        }
        let mut objectives = [None; 3];
        let mut named = BTreeSet::new();
        for part in given.value.split(',') {
            let of_class = part.trim().split_once(char::is_whitespace).and_then(|(name, text)| {
                let class = Class::ALL.into_iter().find(|class| class.as_str() == name)?;
                let objective = if text.trim() == "none" { None } else { Some(parse(text.trim())?) };
                named.insert(class).then_some((class, objective))
            });
            let Some((class, objective)) = of_class else { return Err(self.reject_objectives()) };
            objectives[class as usize] = objective;
        }
        if objectives.iter().all(Option::is_none) { Err(self.reject_objectives()) } else { Ok(objectives) }
    }

    fn reject_objectives(&self) -> TriggerError {
        let longest = Period::new(MAX_PERIOD);
        let rule = format_args!(
            "is not a duration such as 5s, more than 0s and at most {longest}, and not one per class such as \
             \"premium 2s, standard 10s, batch none\""
        );
        self.reject("latency", rule)
    }

    fn classes(&self) -> Result<Vec<Class>, TriggerError> {
        let Some(given) = self.get("classes") else { return Ok(Vec::new()) };
        let class = |name: &str| Class::ALL.into_iter().find(|class| class.as_str() == name.trim());
        // A set, because a class that is named twice must count once.
        let classes: Option<BTreeSet<Class>> = given.value.split(',').map(class).collect();
        let classes = classes.map(|classes| classes.into_iter().collect());
        classes.ok_or_else(|| self.reject("classes", "is not a list of premium, standard and batch"))
    }

    fn number(&self, key: &'static str, least: f64, most: f64) -> Result<Option<f64>, TriggerError> {
        let Some(given) = self.get(key) else { return Ok(None) };
        match given.value.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= least && number <= most => Ok(Some(number)),
            Ok(number) if number.is_finite() && number > most && most >= MAX_TARGET => {
                Err(self.reject(key, format_args!("is not a number of at most {most}")))
            }
            // The upper bound is far above any useful number, so the message for other values does not contain it.
            _ if most >= MAX_TARGET => Err(self.reject(key, format_args!("is not a number of at least {least}"))),
            _ => Err(self.reject(key, format_args!("is not a number from {least} to {most}"))),
        }
    }

    fn workers(&self, key: &'static str) -> Result<Option<u32>, TriggerError> {
        let Some(given) = self.get(key) else { return Ok(None) };
        match given.value.parse::<u32>() {
            Ok(number) if f64::from(number) <= MAX_WORKERS => Ok(Some(number)),
            _ => Err(self.reject(key, format_args!("is not a whole number from 0 to {MAX_WORKERS}"))),
        }
    }

    fn flag(&self, key: &'static str) -> Result<bool, TriggerError> {
        match self.get(key).map(|given| given.value) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(self.reject(key, "is not true or false")),
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&self, key: &'static str) -> Result<Option<T>, TriggerError> {
        let Some(given) = self.get(key) else { return Ok(None) };
        given.value.parse().map(Some).map_err(|why| self.reject(key, why))
    }

    fn period(&self, key: &'static str, longest: Duration) -> Result<Option<Duration>, TriggerError> {
        let Some(given) = self.get(key) else { return Ok(None) };
        match given.value.parse::<Period>() {
            Ok(period) if !period.is_zero() && period.get() <= longest => Ok(Some(period.get())),
            _ => {
                let longest = Period::new(longest);
                Err(self.reject(key, format_args!("is not a duration such as 5s, more than 0s and at most {longest}")))
            }
        }
    }

    /// A window that is long enough for several readings.
    fn window(&self, key: &'static str, absent: Duration) -> Result<Duration, TriggerError> {
        let window = self.period(key, LONGEST_WINDOW)?.unwrap_or(absent);
        if window < Duration::from_secs(2) {
            return Err(self.reject(key, "is not at least 2s, in which a rate can be measured"));
        }
        Ok(window)
    }
}

/// A value in an error message: quoted, and cut off because it may have any length.
fn shown(value: &str) -> String {
    format!("{:?}", value.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests;
