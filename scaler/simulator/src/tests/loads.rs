//! Random loads, workers and settings.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::Scaling;
use policy::replicas::{Behavior, Policy, Rules, Step};
use proptest::prelude::*;
use queue::Class;

use crate::trace::{Arrival, Trace};
use crate::worker::Worker;

/// The metadata of a trigger.
pub(super) fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The defaults of KEDA and the HPA, with a high maximum.
pub(super) fn defaults() -> Rules {
    Rules { max: 100, ..Rules::default() }
}

/// The recommended rules of `deploy/keda/latency.yaml`, without the windows that the scaler makes superfluous.
pub(super) fn recommended() -> Rules {
    let rules = defaults();
    let policies = vec![Policy { step: Step::Pods(100), period: Duration::from_secs(15) }];
    Rules {
        polling_interval: Duration::from_secs(15),
        cooldown: Duration::from_secs(30),
        has_behavior: true,
        up: Behavior { policies, ..rules.up },
        down: Behavior { stabilization_window: Duration::ZERO, ..rules.down },
        ..rules
    }
}

/// Jobs at equal distances from `from` until `until`.
pub(super) fn even(rate: f64, from: Duration, until: Duration) -> impl Iterator<Item = Arrival> {
    let count = (rate * (until - from).as_secs_f64()) as u32;
    (0..count).map(move |job| Arrival {
        at: from + Duration::from_secs_f64(f64::from(job) / rate),
        work: 1.0,
        class: Class::Standard,
    })
}

pub(super) fn any_worker() -> impl Strategy<Value = Worker> {
    (1_u64..90, 10_u64..500, 5_u64..100, 1_u32..32).prop_map(|(cold_start, base, item, batch_limit)| Worker {
        cold_start: Duration::from_secs(cold_start),
        batch_base: Duration::from_millis(base),
        batch_item: Duration::from_millis(item),
        batch_limit,
    })
}

pub(super) fn any_scaling() -> impl Strategy<Value = Scaling> {
    let of = |pairs: &[(&str, &str)]| Scaling::of_metadata(&metadata(pairs)).unwrap();
    prop_oneof![
        (1..50_u32).prop_map(move |value| of(&[("value", &value.to_string())])),
        (1..30_u32).prop_map(move |latency| of(&[("mode", "latency"), ("latency", &format!("{latency}s"))])),
        (1..30_u32).prop_map(move |rate| of(&[("mode", "rate"), ("jobsPerSecond", &rate.to_string())])),
    ]
}

pub(super) fn any_rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), 1_u32..30, 0_u64..300).prop_map(|(is_default, max, cooldown)| {
        let rules = if is_default { defaults() } else { recommended() };
        Rules { max, cooldown: Duration::from_secs(cooldown), ..rules }
    })
}

/// Phases without arrivals, with a constant rate, and with many jobs at once: up to a few thousand jobs in about ten
/// minutes.
pub(super) fn any_load() -> impl Strategy<Value = Trace> {
    let part = prop_oneof![
        2 => (1_u64..200).prop_map(|lasts| (lasts, 0.0, 0)),
        2 => (1_u64..120, 0.02..20.0_f64).prop_map(|(lasts, rate)| (lasts, rate, 0)),
        1 => (1_u64..20, 1_usize..500).prop_map(|(lasts, at_once)| (lasts, 0.0, at_once)),
    ];
    prop::collection::vec(part, 1..8).prop_map(|parts| {
        let (mut jobs, mut from) = (Vec::new(), Duration::from_millis(300));
        for (lasts, rate, at_once) in parts {
            let until = from + Duration::from_secs(lasts);
            jobs.extend(std::iter::repeat_n(Arrival { at: from, work: 1.0, class: Class::Standard }, at_once));
            if rate > 0.0 {
                jobs.extend(even(rate, from, until));
            }
            from = until;
        }
        Trace { jobs, length: from }
    })
}
