//! The metadata of a ScaledObject, one `key=value` per line.
//!
//! The error of a rejected trigger names a key and a short reason, since KEDA copies it into Kubernetes events. The same
//! keys are the same trigger in a ScaledObject and in a pool's configuration.

#![no_main]

use std::collections::{BTreeMap, HashMap};

use libfuzzer_sys::fuzz_target;
use policy::{POOL_KEY, Trigger};

/// The longest note of a Kubernetes event, in bytes.
const LONGEST_NOTE: usize = 1024;

fuzz_target!(|text: &str| {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let keys: BTreeMap<String, String> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let pool = keys.get(POOL_KEY).map_or("fuzz", String::as_str);
    let only_pool = HashMap::from([(POOL_KEY.to_owned(), pool.to_owned())]);
    let mut metadata: HashMap<String, String> = keys.clone().into_iter().collect();
    metadata.extend(only_pool.clone());

    let none = BTreeMap::new();
    let trigger = Trigger::read(&metadata, |_| Some(&none));
    assert_eq!(trigger, Trigger::read(&only_pool, |_| Some(&keys)));
    match trigger {
        Ok(Trigger { scaling, .. }) => assert!(scaling.max.is_none_or(|max| scaling.min <= max && max >= 1)),
        Err(error) => {
            assert!(!error.key.is_empty() && !error.message.is_empty());
            assert!(error.to_string().len() <= LONGEST_NOTE, "{error}");
        }
    }
});
