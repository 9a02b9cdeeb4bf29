use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<Trigger, String> {
    let trigger = [("value", "7"), ("activationValue", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let fast = [("mode", "latency"), ("latency", "2s")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let pools: BTreeMap<PoolName, BTreeMap<String, String>> =
        BTreeMap::from([("digits".parse().unwrap(), trigger.into()), ("fast".parse().unwrap(), fast.into())]);
    let metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Trigger::read(&metadata, |pool| pools.get(pool)).map_err(|error| error.to_string())
}

fn scaling(pairs: &[(&str, &str)]) -> Scaling {
    read(&[&[("pool", "digits")], pairs].concat()).unwrap().scaling
}

fn error(pairs: &[(&str, &str)]) -> String {
    read(&[&[("pool", "digits")], pairs].concat()).unwrap_err()
}

#[test]
fn a_trigger_with_only_a_pool_has_the_values_of_the_pools_configuration() {
    let of_digits = scaling(&[]);
    assert_eq!((of_digits.mode.target(), of_digits.activation), (7.0, 1.0));
    let Mode::Latency(latency) = read(&[("pool", "fast")]).unwrap().scaling.mode else { panic!("another mode") };
    assert_eq!(latency.objective(), Duration::from_secs(2));
}

#[test]
fn a_trigger_may_have_its_own_numbers_under_the_names_of_other_scalers() {
    for key in ["value", "lagThreshold", "queueLength"] {
        assert_eq!(scaling(&[(key, " 2.5 ")]).mode.target(), 2.5, "{key}");
    }
    for key in ["activationValue", "activationLagThreshold"] {
        assert_eq!(scaling(&[(key, "0")]).activation, 0.0, "{key}");
    }
    let Mode::Backlog(backlog) = scaling(&[("excludeInFlight", "true"), ("classes", "premium, batch,premium")]).mode
    else {
        panic!("another mode")
    };
    assert!(backlog.excludes_in_flight);
    assert_eq!(backlog.classes, [Class::Premium, Class::Batch]);
    let all = scaling(&[
        ("minWorkers", "1"),
        ("maxWorkers", "9"),
        ("allowIdleConsumers", "true"),
        ("schedule", "0 8 * * * UTC for 1h = 4"),
    ]);
    assert_eq!((all.min, all.max, all.allows_idle_consumers, all.schedule.0.len()), (1, Some(9), true, 1));
}

#[test]
fn a_missing_required_key_of_a_mode_is_an_error() {
    let Mode::Latency(latency) = scaling(&[("mode", "latency"), ("latency", "2s"), ("percentile", "99")]).mode else {
        panic!("another mode")
    };
    let two = Some(Duration::from_secs(2));
    assert_eq!((latency.objectives, latency.percentile, latency.keep_warm), ([two; 3], 99.0, None));
    let Mode::Rate(rate) = scaling(&[("mode", "rate"), ("jobsPerSecond", "50"), ("stableWindow", "30s")]).mode else {
        panic!("another mode")
    };
    assert_eq!((rate.per_worker, rate.window), (50.0, Duration::from_secs(30)));
    assert_eq!(error(&[("mode", "latency")]), "latency: is missing, and mode latency needs it");
    assert_eq!(error(&[("mode", "rate")]), "jobsPerSecond: is missing, and mode rate needs it");
    // Keys of the configured mode do not apply to another mode.
    assert!(read(&[("pool", "fast"), ("mode", "backlog")]).is_ok());
    assert!(read(&[("pool", "digits"), ("mode", "rate"), ("jobsPerSecond", "5")]).is_ok());
}

#[test]
fn an_objective_holds_for_all_classes_or_for_the_named_ones() {
    let objectives = |text: &str| match scaling(&[("mode", "latency"), ("latency", text)]).mode {
        Mode::Latency(latency) => latency.objectives.map(|objective| objective.map(|objective| objective.as_secs())),
        _ => panic!("another mode"),
    };
    assert_eq!(objectives("5s"), [Some(5); 3]);
    assert_eq!(objectives("premium 2s, standard 10s, batch none"), [Some(2), Some(10), None]);
    assert_eq!(objectives("batch 8h,premium 500ms"), [Some(0), None, Some(8 * 3600)]);
}

#[test]
fn keys_that_were_settings_of_mode_latency_are_accepted_and_named_as_without_effect() {
    let old =
        [("mode", "latency"), ("latency", "2s"), ("panicWindow", "8s"), ("stableWindow", "x"), ("forecast", "on")];
    assert_eq!(scaling(&old), scaling(&[("mode", "latency"), ("latency", "2s")]));
    let trigger = old.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!(deprecated_keys(&trigger), ["forecast", "panicWindow", "stableWindow"]);
    assert!(deprecated_keys(&trigger).into_iter().all(is_trigger_key));
    let rate =
        [("mode", "rate"), ("stableWindow", "30s")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!(deprecated_keys(&rate), Vec::<&str>::new());
}

/// C16.
#[test]
fn unknown_keys_and_kedas_own_keys_are_ignored() {
    let pairs = [("pool", "digits"), ("scalerAddress", "a:1"), ("unsafeSsl", "x"), ("targetbacklog", "y"), ("", "")];
    assert!(read(&pairs).is_ok());
}

/// C16.
#[test]
fn a_missing_pool_and_every_bad_value_are_named_with_key_value_and_rule() {
    let missing = "pool: is missing from the trigger's metadata";
    assert_eq!(read(&[]).unwrap_err(), missing);
    assert_eq!(read(&[("pool", " ")]).unwrap_err(), missing);
    assert!(read(&[("pool", "Digits!")]).unwrap_err().starts_with("pool: \"Digits!\" is not 1 to 63 characters"));
    assert_eq!(read(&[("pool", "letters")]).unwrap_err(), "pool: \"letters\" is not a pool of this scaler");

    let latency = |key, value| vec![("mode", "latency"), ("latency", "2s"), (key, value)];
    let number = "is not a number of at least 0.001";
    let window = "is not a duration such as 5s, more than 0s and at most 1h";
    let rate = |window| vec![("mode", "rate"), ("jobsPerSecond", "5"), ("stableWindow", window)];
    let objective = "is not a duration such as 5s, more than 0s and at most 1d, and not one per class such as \"premium 2s, \
                     standard 10s, batch none\"";
    let whole = "is not a whole number from 0 to 1000000";
    let mut cases = vec![(vec![("mode", "fast")], "mode", "is not backlog, latency or rate")];
    for bad in ["x", "-1", "0", "0.0009", "NaN", "inf"] {
        cases.push((vec![("value", bad)], "value", number));
        cases.push((vec![("queueLength", bad)], "queueLength", number));
        cases.push((vec![("mode", "rate"), ("jobsPerSecond", bad)], "jobsPerSecond", number));
    }
    let most = "is not a number of at most 1000000000000";
    cases.extend([
        (vec![("value", "1e13")], "value", most),
        (vec![("mode", "rate"), ("jobsPerSecond", "1e13")], "jobsPerSecond", most),
        (vec![("activationValue", "-1")], "activationValue", "is not a number of at least 0"),
        (vec![("activationLagThreshold", "much")], "activationLagThreshold", "is not a number of at least 0"),
        (vec![("excludeInFlight", "yes")], "excludeInFlight", "is not true or false"),
        (vec![("allowIdleConsumers", "1")], "allowIdleConsumers", "is not true or false"),
        (vec![("classes", "gold")], "classes", "is not a list of premium, standard and batch"),
        (vec![("minWorkers", "-1")], "minWorkers", whole),
        (vec![("maxWorkers", "1.5")], "maxWorkers", whole),
        (vec![("maxWorkers", "0")], "maxWorkers", "is not at least 1"),
        (vec![("schedule", "daily")], "schedule", "is not minute hour"),
        (vec![("mode", "latency"), ("latency", "fast")], "latency", objective),
        (vec![("mode", "latency"), ("latency", "0s")], "latency", objective),
        (vec![("mode", "latency"), ("latency", "gold 2s")], "latency", objective),
        (vec![("mode", "latency"), ("latency", "batch none")], "latency", objective),
        (vec![("mode", "latency"), ("latency", "premium 2s, premium 3s")], "latency", objective),
        (vec![("mode", "latency"), ("latency", "premium 2s, standard soon")], "latency", objective),
        (latency("percentile", "100"), "percentile", "is not a number from 50 to 99.99"),
        (rate("2h"), "stableWindow", window),
        (rate("1s"), "stableWindow", "is not at least 2s"),
        (rate("soon"), "stableWindow", window),
        (latency("coldStart", "-1s"), "coldStart", "is not a duration such as 5s, more than 0s and at most 1d"),
        (latency("keepWarm", "some"), "keepWarm", "is not auto or a whole number from 0 to 1000000"),
        (latency("maxWorkerHoursPerDay", "-1"), "maxWorkerHoursPerDay", "is not a number from 0 to 24000000"),
        (latency("tolerance", "2"), "tolerance", "is not a number from 0 to 1"),
    ]);
    for (pairs, key, rule) in cases {
        let value = pairs.iter().rev().find(|(name, _)| *name == key).unwrap().1;
        let (message, expected) = (error(&pairs), format!("{key}: {value:?} {rule}"));
        assert!(message.starts_with(&expected), "{message} is not {expected}");
    }
    // The shown part of a value has a maximum length.
    assert!(error(&[("value", &"9x".repeat(5000))]).len() < 120);
    assert!(error(&[("schedule", &format!("0 8 * * * UTC for {} = 4", "9x".repeat(5000)))]).len() < 300);
}

#[test]
fn contradictory_keys_are_rejected() {
    for (pairs, expected) in [
        (vec![("value", "5"), ("lagThreshold", "6")], "lagThreshold: \"6\" contradicts value, \"5\""),
        (vec![("latency", "2s")], "latency: \"2s\" is for mode latency, not backlog"),
        (
            vec![("mode", "latency"), ("latency", "2s"), ("queueLength", "5")],
            "queueLength: \"5\" is for mode backlog, not latency",
        ),
        (vec![("stableWindow", "30s")], "stableWindow: \"30s\" is for mode rate and latency, not backlog"),
        (vec![("minWorkers", "3"), ("maxWorkers", "2")], "minWorkers: \"3\" is more than maxWorkers, 2"),
        (
            vec![("maxWorkers", "2"), ("schedule", "0 8 * * * UTC for 1h = 4")],
            "schedule: \"0 8 * * * UTC for 1h = 4\" asks for more than maxWorkers, 2",
        ),
    ] {
        assert_eq!(error(&pairs), expected);
    }
    assert!(read(&[("pool", "digits"), ("value", "5"), ("lagThreshold", "5")]).is_ok());
}

/// KEDA sends a key with the suffix `FromEnv` together with the value of the variable.
#[test]
fn a_key_from_the_environment_is_the_key_itself() {
    let plain = read(&[("pool", "digits"), ("lagThreshold", "7"), ("maxWorkers", "3")]).unwrap();
    let from_env = [("poolFromEnv", "digits"), ("lagThresholdFromEnv", "7"), ("maxWorkersFromEnv", "3")];
    assert_eq!(read(&from_env).unwrap(), plain);
    assert!(read(&[("pool", "digits"), ("poolFromEnv", "digits"), ("value", "5"), ("valueFromEnv", "5")]).is_ok());
    assert_eq!(error(&[("value", "5"), ("valueFromEnv", "6")]), "valueFromEnv: \"6\" contradicts value, \"5\"");
    assert_eq!(error(&[("maxWorkersFromEnv", "0")]), "maxWorkersFromEnv: \"0\" is not at least 1");
    let other = read(&[("pool", "digits"), ("poolFromEnv", "other")]).unwrap_err();
    assert_eq!(other, "poolFromEnv: \"other\" contradicts pool, \"digits\"");
    assert!(!is_trigger_key("valueFromEnv"));
}
