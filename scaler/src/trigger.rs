//! What a ScaledObject says in its trigger's metadata.
//!
//! | key | meaning |
//! |---|---|
//! | `pool` | the pool to scale; required |
//! | `targetBacklog` | jobs of backlog per worker, at least 0.001; the pool's `target` where it is absent |
//! | `activationBacklog` | a backlog above this starts the first worker, at least 0; the pool's `activation` where absent |
//!
//! Every other key is borne: KEDA sends the whole map, its own `scalerAddress` included, and may learn new ones.

use std::collections::{BTreeMap, HashMap};

use queue::PoolName;

use crate::PoolScale;

/// The metadata key that names the pool.
pub const POOL_KEY: &str = "pool";
/// The metadata key for jobs of backlog per worker.
pub const TARGET_KEY: &str = "targetBacklog";
/// The metadata key for the backlog above which the first worker starts.
pub const ACTIVATION_KEY: &str = "activationBacklog";

/// Below this a metric arrives as 0: it has three decimals on its way.
const SMALLEST_TARGET: f64 = 0.001;

/// The name of a pool's metric: the same for every caller and for ever, since the HPA stores it.
///
/// A pool's name is a DNS label, so the metric's is at most 72 characters, without `/` and `%`.
pub fn metric_name(pool: &PoolName) -> String {
    format!("millrace-{pool}")
}

/// A trigger that has been understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trigger {
    pub(crate) pool: PoolName,
    pub(crate) target: f64,
    pub(crate) activation: f64,
}

/// A trigger that has not. The texts end up in Kubernetes events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TriggerError {
    #[error("{0}")]
    Invalid(String),
    #[error("pool: {0:?} is not a pool of this scaler")]
    UnknownPool(String),
}

impl Trigger {
    pub(crate) fn read(
        metadata: &HashMap<String, String>,
        pools: &BTreeMap<PoolName, PoolScale>,
    ) -> Result<Self, TriggerError> {
        let name = metadata.get(POOL_KEY).map(|name| name.trim());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(TriggerError::Invalid(format!("{POOL_KEY}: is missing from the trigger's metadata")));
        };
        let pool: PoolName = name.parse().map_err(|error| TriggerError::Invalid(format!("{error}")))?;
        let scale = pools.get(&pool).ok_or_else(|| TriggerError::UnknownPool(name.to_owned()))?;
        Ok(Self {
            target: number(metadata, TARGET_KEY, SMALLEST_TARGET, scale.target)?,
            activation: number(metadata, ACTIVATION_KEY, 0.0, scale.activation)?,
            pool,
        })
    }
}

fn number(metadata: &HashMap<String, String>, key: &str, least: f64, absent: f64) -> Result<f64, TriggerError> {
    let Some(text) = metadata.get(key).map(|text| text.trim()).filter(|text| !text.is_empty()) else {
        return Ok(absent);
    };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= least => Ok(number),
        _ => {
            let shown: String = text.chars().take(40).collect();
            Err(TriggerError::Invalid(format!("{key}: {shown:?} is not a number of at least {least}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Trigger, String> {
        let scale = PoolScale { target: 7.0, activation: 1.0, ..PoolScale::default() };
        let pools = BTreeMap::from([("digits".parse().unwrap(), scale)]);
        let metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Trigger::read(&metadata, &pools).map_err(|error| error.to_string())
    }

    #[test]
    fn a_trigger_that_names_a_pool_has_the_pools_numbers() {
        let trigger = read(&[("pool", "digits")]).unwrap();
        assert_eq!((trigger.target, trigger.activation), (7.0, 1.0));
    }

    #[test]
    fn a_trigger_may_have_numbers_of_its_own() {
        let trigger = read(&[("pool", " digits "), ("targetBacklog", "2.5"), ("activationBacklog", "0")]).unwrap();
        assert_eq!((trigger.target, trigger.activation), (2.5, 0.0));
    }

    /// C16.
    #[test]
    fn unknown_keys_and_kedas_own_are_borne() {
        let pairs =
            [("pool", "digits"), ("scalerAddress", "a:1"), ("unsafeSsl", "x"), ("targetbacklog", "y"), ("", "")];
        assert!(read(&pairs).is_ok());
    }

    /// C16.
    #[test]
    fn a_missing_or_bad_value_is_named_with_its_key_and_rule() {
        let missing = "pool: is missing from the trigger's metadata";
        assert_eq!(read(&[]).unwrap_err(), missing);
        assert_eq!(read(&[("pool", "")]).unwrap_err(), missing);
        assert!(read(&[("pool", "Digits!")]).unwrap_err().starts_with("pool: \"Digits!\" is not 1 to 63 characters"));
        assert_eq!(read(&[("pool", "letters")]).unwrap_err(), "pool: \"letters\" is not a pool of this scaler");
        for bad in ["x", "-1", "0", "0.0009", "NaN", "inf"] {
            let error = read(&[("pool", "digits"), ("targetBacklog", bad)]).unwrap_err();
            assert_eq!(error, format!("targetBacklog: {bad:?} is not a number of at least 0.001"));
        }
        let error = read(&[("pool", "digits"), ("activationBacklog", "-1")]).unwrap_err();
        assert_eq!(error, "activationBacklog: \"-1\" is not a number of at least 0");
    }
}
