//! The settings of the scaler.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::Scaling;
use policy::replicas::{Behavior, Policy, Rules, Select, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{Faults, Period, TlsSettings};

use crate::tenancy::Tenancy;

/// The settings of the scaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScalerSettings {
    /// The address for KEDA, as `host:port`.
    pub listen: String,
    /// The interval at which every pool is read.
    pub sample_interval: Period,
    /// The time limit for one read of a broker, ledger or roster.
    pub read_timeout: Period,
    /// The maximum age of a reading. If the last reading is older, the answer is an error.
    pub max_reading_age: Period,
    /// How long a call may wait for the first reading of a pool.
    pub answer_timeout: Period,
    /// The interval of HTTP/2 pings on an idle connection, and the time limit for their answers.
    pub keepalive_interval: Period,
    /// The files for TLS. Without them the scaler serves plain HTTP/2.
    pub tls: Option<TlsSettings>,
    /// The pools that each namespace may use.
    pub namespaces: Tenancy,
}

impl Default for ScalerSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9090".to_owned(),
            sample_interval: Period::millis(500),
            read_timeout: Period::seconds(2),
            max_reading_age: Period::seconds(10),
            answer_timeout: Period::seconds(2),
            keepalive_interval: Period::seconds(20),
            tls: None,
            namespaces: Tenancy::default(),
        }
    }
}

impl ScalerSettings {
    /// Adds the faults of these settings, which are the value of `key`.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        for (name, period) in [
            ("sample_interval", self.sample_interval),
            ("read_timeout", self.read_timeout),
            ("answer_timeout", self.answer_timeout),
            ("keepalive_interval", self.keepalive_interval),
        ] {
            if period.is_zero() {
                faults.refuse(format_args!("{key}.{name}"), period, "is not more than 0s");
            }
        }
        // A round takes one interval and up to three reads. With a lower limit, a slow round would make readings too
        // old.
        let round = Period::new(self.sample_interval.saturating_add(self.read_timeout.saturating_mul(3)));
        if self.max_reading_age < round {
            let rule = format!("is not at least sample_interval + 3 × read_timeout, {round}");
            faults.refuse(format_args!("{key}.max_reading_age"), self.max_reading_age, rule);
        }
        if let Some(tls) = &self.tls {
            tls.check(&format!("{key}.tls"), faults);
        }
    }
}

/// How a pool is scaled.
///
/// `trigger` has the defaults for the answers to KEDA. The other keys correspond to a ScaledObject and its HPA. They
/// apply only where this program does the work of KEDA and the HPA itself (`millrace up`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolScale {
    /// Values for keys that are missing from a trigger's metadata, except `pool`.
    pub trigger: BTreeMap<String, String>,
    /// The minimum number of workers.
    pub min: u32,
    /// The maximum number of workers.
    #[schemars(range(min = 1))]
    pub max: u32,
    /// How long a pool must be inactive before its last workers are stopped.
    pub cooldown: Period,
    /// The interval at which the activity of the pool is checked (KEDA's `pollingInterval`).
    pub polling_interval: Period,
    /// The interval at which the number of workers is computed (the HPA's sync period).
    pub sync_interval: Period,
    /// The number of workers falls to the largest number wanted within this time (the HPA's scale-down stabilization).
    pub stabilization_window: Period,
    /// A deviation from the target up to this share is ignored.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub tolerance: f64,
    /// The number of workers that may be added within `up_period`.
    pub up_workers: u32,
    /// The same as a percentage of the present workers. The larger of the two limits applies.
    pub up_percent: u32,
    /// The period of `up_workers` and `up_percent`.
    pub up_period: Period,
}

impl Default for PoolScale {
    /// The defaults of KEDA and the HPA, except that `max` is 10. It is 100 in KEDA, but GPUs are expensive.
    fn default() -> Self {
        Self {
            trigger: BTreeMap::new(),
            min: 0,
            max: 10,
            cooldown: Period::seconds(300),
            polling_interval: Period::seconds(30),
            sync_interval: Period::seconds(15),
            stabilization_window: Period::seconds(300),
            tolerance: 0.1,
            up_workers: 4,
            up_percent: 100,
            up_period: Period::seconds(15),
        }
    }
}

impl PoolScale {
    /// Adds the faults of these settings, which are the value of `key`.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        for name in self.trigger.keys().filter(|name| !policy::is_trigger_key(name)) {
            faults.add(format_args!("{key}.trigger.{name}"), "is not a trigger key");
        }
        if let Err(error) = Scaling::of_metadata(&self.trigger) {
            faults.add(format_args!("{key}.trigger.{}", error.key), error.message);
        }
        if self.min > self.max {
            faults.refuse(format_args!("{key}.min"), self.min, format_args!("is more than max, {}", self.max));
        }
        for (name, period) in [("polling_interval", self.polling_interval), ("sync_interval", self.sync_interval)] {
            if period.is_zero() {
                faults.refuse(format_args!("{key}.{name}"), period, "is not more than 0s");
            }
        }
        if self.up_workers == 0 && self.up_percent == 0 {
            faults.refuse(format_args!("{key}.up_workers"), 0, "with up_percent 0 prevents every rise");
        }
    }

    /// These settings as rules for [`policy::replicas`].
    pub fn rules(&self) -> Rules {
        Rules {
            min: self.min,
            max: self.max,
            polling_interval: self.polling_interval.get(),
            cooldown: self.cooldown.get(),
            initial_cooldown: Duration::ZERO,
            idle_at_zero: false,
            fallback: None,
            sync_interval: self.sync_interval.get(),
            has_behavior: true,
            up: Behavior {
                tolerance: self.tolerance,
                stabilization_window: Duration::ZERO,
                select: Select::Max,
                policies: vec![
                    Policy { step: Step::Pods(self.up_workers), period: self.up_period.get() },
                    Policy { step: Step::Percent(self.up_percent), period: self.up_period.get() },
                ],
            },
            down: Behavior {
                tolerance: self.tolerance,
                stabilization_window: self.stabilization_window.get(),
                select: Select::Max,
                policies: vec![Policy { step: Step::Percent(100), period: Duration::from_secs(15) }],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_faults() {
        let mut faults = Faults::default();
        ScalerSettings::default().check("scaler", &mut faults);
        PoolScale::default().check("pools.a.scale", &mut faults);
        assert!(faults.is_empty(), "{faults}");
    }

    #[test]
    fn the_default_rules_of_a_pool_are_those_of_an_hpa_with_an_empty_behavior() {
        assert_eq!(PoolScale::default().rules(), Rules { has_behavior: true, ..Rules::default() });
    }

    #[test]
    fn settings_that_contradict_each_other_are_faults() {
        let mut faults = Faults::default();
        let settings = ScalerSettings { max_reading_age: Period::seconds(1), ..ScalerSettings::default() };
        settings.check("scaler", &mut faults);
        let trigger = [("mode", "latency"), ("colour", "red")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let polling_interval = Period::seconds(0);
        let scale = PoolScale { trigger: trigger.into(), min: 3, max: 2, polling_interval, ..PoolScale::default() };
        scale.check("pools.a.scale", &mut faults);
        let expected = [
            "scaler.max_reading_age: 1s is not at least sample_interval + 3 × read_timeout, 6s500ms",
            "pools.a.scale.trigger.colour: is not a trigger key",
            "pools.a.scale.trigger.latency: is missing, and mode latency needs it",
            "pools.a.scale.min: 3 is more than max, 2",
            "pools.a.scale.polling_interval: 0s is not more than 0s",
        ];
        assert_eq!(faults.to_string(), expected.join("\n"));
    }
}
