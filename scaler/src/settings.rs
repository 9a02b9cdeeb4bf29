//! What the scaler must be told.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::Scaling;
use policy::replicas::{Behavior, Policy, Rules, Select, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{Faults, Period};

use crate::tenancy::Tenancy;
use crate::tls::TlsSettings;

/// The scaler's own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScalerSettings {
    /// Where KEDA calls: `host:port`.
    pub listen: String,
    /// How often every pool is read.
    pub sample_interval: Period,
    /// How long one read of a broker, ledger or roster may take.
    pub read_timeout: Period,
    /// A reading older than this is not spoken of: the answer is an error.
    pub max_reading_age: Period,
    /// How long a call may wait for the very first reading.
    pub answer_timeout: Period,
    /// How often a silent connection is asked whether it is alive; it is closed when it does not say so for as long.
    pub keepalive_interval: Period,
    /// TLS; plain HTTP/2 unless given.
    pub tls: Option<TlsSettings>,
    /// The pools that each namespace may ask for.
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
    /// Adds what is wrong with these settings, which stand under `key`.
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
        // A round is one interval and three reads, so with less than this a reading is too old as soon as it is slow.
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
/// KEDA is answered as `trigger` says; the rest is what a ScaledObject and its HPA say in a cluster, and is used where this
/// program does their work itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolScale {
    /// What holds where a trigger's metadata does not say it, under the same keys; `pool` aside.
    pub trigger: BTreeMap<String, String>,
    /// The fewest workers.
    pub min: u32,
    /// The most workers.
    #[schemars(range(min = 1))]
    pub max: u32,
    /// How long a pool must have been inactive before its last workers are stopped.
    pub cooldown: Period,
    /// How often activity is asked for (KEDA's `pollingInterval`).
    pub polling_interval: Period,
    /// How often the number of workers is reckoned anew (the HPA's sync period).
    pub sync_interval: Period,
    /// The number falls to the largest one wanted within this time (the HPA's scale-down stabilisation).
    pub stabilization_window: Period,
    /// A deviation from the target up to this share changes nothing.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub tolerance: f64,
    /// Within `up_period`, this many workers may be added …
    pub up_workers: u32,
    /// … or this many percent of them, whichever is more.
    pub up_percent: u32,
    /// The time over which additions are counted.
    pub up_period: Period,
}

impl Default for PoolScale {
    /// KEDA's and the HPA's own defaults, but for `max`, which is 100 with KEDA: GPUs cost money.
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
    /// Adds what is wrong with these settings, which stand under `key`.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        for name in self.trigger.keys().filter(|name| !policy::is_known(name)) {
            faults.add(format_args!("{key}.trigger.{name}"), "is no key of a trigger");
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
            faults.refuse(format_args!("{key}.up_workers"), 0, "with up_percent 0 never lets the pool grow");
        }
    }

    /// What [`policy::replicas`] needs of these settings.
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
    fn the_defaults_have_no_fault() {
        let mut faults = Faults::default();
        ScalerSettings::default().check("scaler", &mut faults);
        PoolScale::default().check("pools.a.scale", &mut faults);
        assert!(faults.is_empty(), "{faults}");
    }

    #[test]
    fn the_default_rules_of_a_pool_are_those_of_the_policies() {
        assert_eq!(PoolScale::default().rules(), Rules::default());
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
            "pools.a.scale.trigger.colour: is no key of a trigger",
            "pools.a.scale.trigger.latency: is missing, and mode latency needs it",
            "pools.a.scale.min: 3 is more than max, 2",
            "pools.a.scale.polling_interval: 0s is not more than 0s",
        ];
        assert_eq!(faults.to_string(), expected.join("\n"));
    }
}
