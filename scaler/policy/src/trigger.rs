//! What a ScaledObject says in its trigger's metadata.
//!
//! | key | mode | meaning |
//! |---|---|---|
//! | `pool` | | the pool to scale; required |
//! | `mode` | | `backlog` (the default), `latency` or `rate` |
//! | `value`, `lagThreshold`, `queueLength` | backlog | jobs of backlog per worker, at least 0.001; 10 |
//! | `excludeInFlight` | backlog | `true`: jobs in workers' hands do not count; `false` |
//! | `classes` | backlog | the classes whose waiting jobs count, separated by commas; all |
//! | `latency` | latency | how long a job may take, from its arrival to its end; required |
//! | `percentile` | latency | for how many of a hundred jobs; 95 |
//! | `panicWindow` | latency | a rise that shows in this time is followed at once; 8s |
//! | `stableWindow` | latency, rate | rates are averaged over this time; 60s |
//! | `scaleDownDelay` | latency | fewer arrivals count when they have been fewer for so long; 2m |
//! | `coldStart` | latency | how long a worker takes to be ready, until one has measured it; 60s |
//! | `forecast` | latency | `shadow`: computed and shown, not used; `on`: used where it is higher; `shadow` |
//! | `tolerance` | latency | the HPA's tolerance, which a rise must exceed to count; 0.1 |
//! | `jobsPerSecond` | rate | jobs per second that one worker serves, at least 0.001; required |
//! | `activationValue`, `activationLagThreshold` | | a backlog above this starts the first worker; 0 |
//! | `minWorkers`, `maxWorkers` | | the fewest and the most workers asked for; 0 and no limit |
//! | `schedule` | | the fewest workers at certain times; see [`crate::schedule`] |
//! | `allowIdleConsumers` | | `true`: more workers than Kafka has partitions for; `false` |
//!
//! Every other key is borne: KEDA sends the whole map, its own `scalerAddress` included, and may learn new ones. What a
//! trigger does not say is as the pool's configuration has it.

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

/// A metric has three decimals on its way: below this it arrives as 0.
const SMALLEST_TARGET: f64 = 0.001;

/// With this and as many workers as there may be a value is still a number like any other.
const LARGEST_TARGET: f64 = 1e12;

/// No pool has more workers.
const MOST_WORKERS: f64 = 1e6;

/// Longer than this no job is waited for, and no model loads.
const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// The keys that are understood, each with the other names it may have, and the modes it is for (none: all of them).
const KEYS: [(&str, &[&str], &[&str]); 18] = [
    ("mode", &[], &[]),
    ("value", &["lagThreshold", "queueLength"], &["backlog"]),
    ("excludeInFlight", &[], &["backlog"]),
    ("classes", &[], &["backlog"]),
    ("latency", &[], &["latency"]),
    ("percentile", &[], &["latency"]),
    ("panicWindow", &[], &["latency"]),
    ("stableWindow", &[], &["latency", "rate"]),
    ("scaleDownDelay", &[], &["latency"]),
    ("coldStart", &[], &["latency"]),
    ("forecast", &[], &["latency"]),
    ("tolerance", &[], &["latency"]),
    ("jobsPerSecond", &[], &["rate"]),
    ("activationValue", &["activationLagThreshold"], &[]),
    ("minWorkers", &[], &[]),
    ("maxWorkers", &[], &[]),
    ("schedule", &[], &[]),
    ("allowIdleConsumers", &[], &[]),
];

/// Whether a key is one that a pool's configuration can have; another would be a slip of the pen there.
pub fn is_known(name: &str) -> bool {
    KEYS.iter().any(|(key, others, _)| *key == name || others.contains(&name))
}

/// The name of a pool's metric: the same for every caller and for ever, since the HPA stores it.
///
/// A pool's name is a DNS label, so the metric's is at most 72 characters, without `/` and `%`.
pub fn metric_name(pool: &PoolName) -> String {
    format!("millrace-{pool}")
}

/// A trigger that has been understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// The pool.
    pub pool: PoolName,
    /// The rule by which it is scaled.
    pub scaling: Scaling,
}

/// A trigger that has not. The text ends up in Kubernetes events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct TriggerError {
    /// The key at fault, by the name under which it was given.
    pub key: String,
    /// Its value and the rule it breaks.
    pub message: String,
}

impl TriggerError {
    fn new(key: &str, message: impl Display) -> Self {
        Self { key: key.to_owned(), message: message.to_string() }
    }
}

impl Trigger {
    /// What `metadata` asks for; what it does not say is as the pool has it.
    ///
    /// `of_pool` returns the configured trigger of a pool, if there is such a pool.
    pub fn read<'a>(
        metadata: &HashMap<String, String>,
        of_pool: impl Fn(&PoolName) -> Option<&'a BTreeMap<String, String>>,
    ) -> Result<Self, TriggerError> {
        let name = metadata.get(POOL_KEY).map(|name| name.trim());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(TriggerError::new(POOL_KEY, "is missing from the trigger's metadata"));
        };
        let pool: PoolName = name.parse().map_err(|error: queue::Error| {
            // It begins with what it speaks of.
            let text = error.to_string();
            TriggerError::new(POOL_KEY, text.strip_prefix("pool: ").unwrap_or(&text))
        })?;
        let Some(configured) = of_pool(&pool) else {
            return Err(TriggerError::new(POOL_KEY, format_args!("{} is not a pool of this scaler", shown(name))));
        };
        let own = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let configured = configured.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let scaling = Scaling::read([own.collect(), configured.collect()])?;
        Ok(Self { pool, scaling })
    }
}

impl Scaling {
    /// What a trigger's metadata asks for.
    pub fn of_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, TriggerError> {
        Self::read([metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(), BTreeMap::new()])
    }

    /// What the first of two maps asks for, and the second where the first is silent.
    fn read([own, of_pool]: [BTreeMap<&str, &str>; 2]) -> Result<Self, TriggerError> {
        let (own, mut of_pool) = (Level::read(own)?, Level::read(of_pool)?);
        let mode = own.0.get("mode").or(of_pool.0.get("mode")).map_or("backlog", |said| said.value);
        own.is_for(mode)?;
        if of_pool.0.get("mode").map_or("backlog", |said| said.value) == mode {
            of_pool.is_for(mode)?;
        } else {
            // What the pool's own mode is told means nothing to another that a trigger asks for.
            of_pool.0.retain(|key, _| KEYS.iter().any(|(known, _, modes)| known == key && modes.is_empty()));
        }
        let said = Said([own, of_pool]);
        let scaling = Self {
            mode: said.mode(mode)?,
            activation: said.number("activationValue", 0.0, f64::MAX)?.unwrap_or(0.0),
            min: said.workers("minWorkers")?.unwrap_or(0),
            max: said.workers("maxWorkers")?,
            allows_idle_consumers: said.flag("allowIdleConsumers")?,
            schedule: said.parsed::<Schedule>("schedule")?.unwrap_or_default(),
            tolerance: said.number("tolerance", 0.0, 1.0)?.unwrap_or(0.1),
        };
        if let Some(max) = scaling.max {
            if max == 0 {
                return Err(said.refuse("maxWorkers", "is not at least 1"));
            }
            if scaling.min > max {
                return Err(said.refuse("minWorkers", format_args!("is more than maxWorkers, {max}")));
            }
            if scaling.schedule.0.iter().any(|floor| floor.workers > max) {
                return Err(said.refuse("schedule", format_args!("asks for more than maxWorkers, {max}")));
            }
        }
        Ok(scaling)
    }
}

/// A value, and the name under which it was given.
#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a str,
    value: &'a str,
}

/// One map, by the first name of each key that is known. An empty value is none.
struct Level<'a>(BTreeMap<&'static str, Named<'a>>);

impl<'a> Level<'a> {
    fn read(metadata: BTreeMap<&'a str, &'a str>) -> Result<Self, TriggerError> {
        let mut level = BTreeMap::new();
        for (key, others, _) in KEYS {
            let mut first: Option<Named<'a>> = None;
            for name in [key].iter().chain(others) {
                let Some((name, value)) = metadata.get_key_value(name) else { continue };
                let named = Named { name, value: value.trim() };
                if named.value.is_empty() {
                    continue;
                }
                if let Some(first) = first
                    && first.value != named.value
                {
                    let (one, other) = (shown(named.value), shown(first.value));
                    return Err(TriggerError::new(name, format_args!("{one} contradicts {}, {other}", first.name)));
                }
                first = first.or(Some(named));
            }
            if let Some(named) = first {
                level.insert(key, named);
            }
        }
        Ok(Self(level))
    }

    /// Whether everything that is said means something to `mode`.
    fn is_for(&self, mode: &str) -> Result<(), TriggerError> {
        for (key, _, modes) in KEYS {
            if let Some(Named { name, value }) = self.0.get(key)
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
struct Said<'a>([Level<'a>; 2]);

impl<'a> Said<'a> {
    fn get(&self, key: &str) -> Option<Named<'a>> {
        self.0.iter().find_map(|level| level.0.get(key)).copied()
    }

    fn refuse(&self, key: &'static str, rule: impl Display) -> TriggerError {
        match self.get(key) {
            Some(Named { name, value }) => TriggerError::new(name, format_args!("{} {rule}", shown(value))),
            None => TriggerError::new(key, rule),
        }
    }

    fn mode(&self, mode: &str) -> Result<Mode, TriggerError> {
        match mode {
            "backlog" => Ok(Mode::Backlog(Backlog {
                per_worker: self.number("value", SMALLEST_TARGET, LARGEST_TARGET)?.unwrap_or(10.0),
                excludes_in_flight: self.flag("excludeInFlight")?,
                classes: self.classes()?,
            })),
            "latency" => self.latency().map(Mode::Latency),
            "rate" => Ok(Mode::Rate(Rate {
                per_worker: self
                    .number("jobsPerSecond", SMALLEST_TARGET, LARGEST_TARGET)?
                    .ok_or_else(|| self.refuse("jobsPerSecond", "is missing, and mode rate needs it"))?,
                window: self.window("stableWindow", Duration::from_secs(60))?,
            })),
            _ => Err(self.refuse("mode", "is not backlog, latency or rate")),
        }
    }

    fn latency(&self) -> Result<Latency, TriggerError> {
        let objective = self
            .period("latency", LONGEST_PERIOD)?
            .ok_or_else(|| self.refuse("latency", "is missing, and mode latency needs it"))?;
        let stable_window = self.window("stableWindow", Duration::from_secs(60))?;
        let latency = Latency {
            objective,
            percentile: self.number("percentile", 50.0, 99.99)?.unwrap_or(95.0),
            panic_window: self.window("panicWindow", Duration::from_secs(8).min(stable_window))?,
            stable_window,
            scale_down_delay: self.window("scaleDownDelay", Duration::from_secs(120))?,
            look_back: Duration::from_secs(20 * 60),
            long_look_back: LONGEST_WINDOW,
            cold_start: self.period("coldStart", LONGEST_PERIOD)?.unwrap_or(Duration::from_secs(60)),
            follows_forecast: match self.get("forecast").map(|said| said.value) {
                None | Some("shadow") => false,
                Some("on") => true,
                Some(_) => return Err(self.refuse("forecast", "is not shadow or on")),
            },
        };
        if latency.panic_window > latency.stable_window {
            let stable = Period::new(latency.stable_window);
            return Err(self.refuse("panicWindow", format_args!("is longer than stableWindow, {stable}")));
        }
        Ok(latency)
    }

    fn classes(&self) -> Result<Vec<Class>, TriggerError> {
        let Some(said) = self.get("classes") else { return Ok(Vec::new()) };
        let class = |name: &str| Class::ALL.into_iter().find(|class| class.as_str() == name.trim());
        // A set: whoever names one twice counts it once.
        let classes: Option<BTreeSet<Class>> = said.value.split(',').map(class).collect();
        let classes = classes.map(|classes| classes.into_iter().collect());
        classes.ok_or_else(|| self.refuse("classes", "is not a list of premium, standard and batch"))
    }

    fn number(&self, key: &'static str, least: f64, most: f64) -> Result<Option<f64>, TriggerError> {
        let Some(said) = self.get(key) else { return Ok(None) };
        match said.value.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= least && number <= most => Ok(Some(number)),
            // The bound is far beyond what anybody means.
            _ if most >= LARGEST_TARGET => Err(self.refuse(key, format_args!("is not a number of at least {least}"))),
            _ => Err(self.refuse(key, format_args!("is not a number from {least} to {most}"))),
        }
    }

    fn workers(&self, key: &'static str) -> Result<Option<u32>, TriggerError> {
        let Some(said) = self.get(key) else { return Ok(None) };
        match said.value.parse::<u32>() {
            Ok(number) if f64::from(number) <= MOST_WORKERS => Ok(Some(number)),
            _ => Err(self.refuse(key, format_args!("is not a whole number from 0 to {MOST_WORKERS}"))),
        }
    }

    fn flag(&self, key: &'static str) -> Result<bool, TriggerError> {
        match self.get(key).map(|said| said.value) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(self.refuse(key, "is not true or false")),
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&self, key: &'static str) -> Result<Option<T>, TriggerError> {
        let Some(said) = self.get(key) else { return Ok(None) };
        said.value.parse().map(Some).map_err(|why| self.refuse(key, why))
    }

    fn period(&self, key: &'static str, longest: Duration) -> Result<Option<Duration>, TriggerError> {
        let Some(said) = self.get(key) else { return Ok(None) };
        match said.value.parse::<Period>() {
            Ok(period) if !period.is_zero() && period.get() <= longest => Ok(Some(period.get())),
            _ => {
                let longest = Period::new(longest);
                Err(self.refuse(key, format_args!("is not a duration such as 5s, more than 0s and at most {longest}")))
            }
        }
    }

    /// A window in which there are several readings.
    fn window(&self, key: &'static str, absent: Duration) -> Result<Duration, TriggerError> {
        let window = self.period(key, LONGEST_WINDOW)?.unwrap_or(absent);
        if window < Duration::from_secs(2) {
            return Err(self.refuse(key, "is not at least 2s, in which a rate can be measured"));
        }
        Ok(window)
    }
}

/// What is shown of a value: it may be anything, and of any length.
fn shown(value: &str) -> String {
    format!("{:?}", value.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests;
