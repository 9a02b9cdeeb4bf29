use std::io::Write;
use std::time::Duration;

use policy::replicas::{Behavior, Policy, Rules, Select, Step};

use super::*;
use crate::trace::Pattern;

const VALID: &str = "
objective: {latency: 5s, percentile: 90}
worker: {cold_start: 60s, batch_base: 30ms, batch_item: 5ms, batch_limit: 32}
traces:
  steady: {poisson: {rate: 2}, length: 10m, seed: 7}
  daily: {diurnal: {mean: 5, swing: 0.5, period: 1h}, length: 1h}
policies:
  usual: {metadata: {pool: digits, mode: backlog, value: '20'}}
  brisk:
    metadata: {queueLength: '5'}
    scaled_object:
      minReplicaCount: 1
      maxReplicaCount: 7
      idleReplicaCount: 0
      pollingInterval: 10
      cooldownPeriod: 60
      fallback: {failureThreshold: 3, replicas: 2}
      behavior:
        scaleUp: {policies: [{type: Percent, value: 50, periodSeconds: 60}], stabilizationWindowSeconds: 5}
        scaleDown: {selectPolicy: Disabled, tolerance: 0.2}
      horizontalPodAutoscalerSyncPeriod: 10s
";

fn read(text: &str) -> Result<Scenario, Faults> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Scenario::read(file.path())
}

/// The faults of the valid scenario with some of its text replaced.
fn faults_with(replacements: &[(&str, &str)]) -> Vec<String> {
    let mut text = VALID.to_owned();
    for (valid, wrong) in replacements {
        assert!(text.contains(valid), "{valid}");
        text = text.replace(valid, wrong);
    }
    let faults = read(&text).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_scenario_has_worker_objective_and_traces_in_its_own_order() {
    let scenario = read(VALID).unwrap();
    assert_eq!(scenario.objective, Objective { latency: Period::seconds(5), percentile: 90.0 });
    let (batch_base, batch_item) = (Duration::from_millis(30), Duration::from_millis(5));
    let worker = Worker { cold_start: Duration::from_secs(60), batch_base, batch_item, batch_limit: 32 };
    assert_eq!(scenario.worker.worker(), worker);
    let traces = scenario.load_traces(Path::new(".")).unwrap();
    let expected = Pattern::Poisson { rate: 2.0 }.trace(Duration::from_secs(600), 7);
    assert_eq!(traces[0], ("steady".to_owned(), expected));
    assert_eq!(traces[1].0, "daily");
    assert!(scenario.policies.keys().eq(["usual", "brisk"]));
}

#[test]
fn a_scaled_object_has_the_rules_and_defaults_of_keda_and_the_hpa() {
    let scenario = read(VALID).unwrap();
    let seconds = Duration::from_secs;
    let usual = Rules {
        min: 0,
        max: 100,
        idle_at_zero: false,
        polling_interval: seconds(30),
        cooldown: seconds(300),
        initial_cooldown: seconds(0),
        fallback: None,
        sync_interval: seconds(15),
        has_behavior: false,
        up: Behavior {
            tolerance: 0.1,
            stabilization_window: seconds(0),
            select: Select::Max,
            policies: vec![
                Policy { step: Step::Pods(4), period: seconds(15) },
                Policy { step: Step::Percent(100), period: seconds(15) },
            ],
        },
        down: Behavior {
            tolerance: 0.1,
            stabilization_window: seconds(300),
            select: Select::Max,
            policies: vec![Policy { step: Step::Percent(100), period: seconds(15) }],
        },
    };
    assert_eq!(scenario.policies["usual"].scaled_object.rules(), usual);
    let brisk = Rules {
        min: 1,
        max: 7,
        idle_at_zero: true,
        polling_interval: seconds(10),
        cooldown: seconds(60),
        initial_cooldown: seconds(0),
        fallback: Some(policy::replicas::Fallback { failure_threshold: 3, replicas: 2 }),
        sync_interval: seconds(10),
        has_behavior: true,
        up: Behavior {
            stabilization_window: seconds(5),
            policies: vec![Policy { step: Step::Percent(50), period: seconds(60) }],
            ..usual.up
        },
        down: Behavior { tolerance: 0.2, select: Select::Disabled, ..usual.down },
    };
    assert_eq!(scenario.policies["brisk"].scaled_object.rules(), brisk);
}

#[test]
fn all_faults_of_a_scenario_are_reported_together_with_key_value_and_rule() {
    let faults = faults_with(&[
        ("latency: 5s", "latency: 0s"),
        ("batch_limit: 32", "batch_limit: 0"),
        ("cold_start: 60s", "cold_start: 60d"),
        ("rate: 2", "rate: -2"),
        ("seed: 7", "sed: 7"),
        ("period: 1h}, length: 1h", "period: 10ms}"),
        ("value: '20'", "value: '0'"),
        ("maxReplicaCount: 7", "maxReplicaCount: 0"),
        ("periodSeconds: 60", "periodSeconds: 3600"),
        ("selectPolicy: Disabled", "selectPolicy: Least"),
    ]);
    let has_fault = |expected: &str| assert!(faults.iter().any(|fault| fault == expected), "{expected} in {faults:#?}");
    has_fault("worker.batch_limit: 0 is not at least 1");
    has_fault("traces.steady.sed: unknown key (did you mean \"seed\"?)");
    has_fault("policies.brisk.scaled_object.maxReplicaCount: 0 is not at least 1");
    has_fault("policies.brisk.scaled_object.behavior.scaleUp.policies[0].periodSeconds: 3600 is not at most 1800");
    has_fault(
        "policies.brisk.scaled_object.behavior.scaleDown.selectPolicy: \"Least\" is not one of Max, Min, Disabled",
    );
}

#[test]
fn all_broken_rules_across_keys_or_units_are_reported_together() {
    let faults = faults_with(&[
        ("latency: 5s", "latency: 0s"),
        ("percentile: 90", "percentile: 0"),
        ("cold_start: 60s, batch_base: 30ms, batch_item: 5ms", "cold_start: 60d, batch_base: 0s, batch_item: 0s"),
        ("rate: 2", "rate: -2"),
        ("seed: 7", "pool: digits"),
        ("period: 1h}, length: 1h", "period: 10ms}"),
        ("value: '20'", "value: '0'"),
        ("maxReplicaCount: 7", "maxReplicaCount: 1"),
        ("minReplicaCount: 1", "minReplicaCount: 2"),
        ("SyncPeriod: 10s", "SyncPeriod: 0s"),
        ("  usual:", "  oracle:"),
    ]);
    let expected = [
        "objective.latency: 0s is not more than 0s and at most 1d",
        "worker.cold_start: 60d is not at most 1d",
        "objective.percentile: 0 is not more than 0",
        "worker.batch_item: 0s with batch_base 0s makes batches without duration",
        "traces.steady.poisson.rate: -2 is not more than 0",
        "traces.steady.pool: has no meaning with poisson: it is for files",
        "traces.daily.diurnal.period: 10ms is not at least 1s",
        "traces.daily.length: is missing, but diurnal requires it",
        "policies.oracle: the name \"oracle\" is not 1 to 60 printable characters other than \"oracle\"",
        "policies.oracle.metadata.value: \"0\" is not a number of at least 0.001",
        "policies.brisk.scaled_object.minReplicaCount: 2 is more than maxReplicaCount, 1",
        "policies.brisk.scaled_object.horizontalPodAutoscalerSyncPeriod: 0s is not at least 1s and at most 1h",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn a_trace_has_one_source_and_a_name_that_is_valid_for_a_file() {
    let faults = faults_with(&[
        ("steady: {poisson: {rate: 2}, length: 10m, seed: 7}", "../steady: {length: 10m}"),
        ("diurnal: {mean: 5, swing: 0.5, period: 1h}", "csv: a.csv, azure_llm: b.csv"),
    ]);
    assert!(
        faults[0].starts_with("traces.../steady: the name \"../steady\" is not 1 to 60 letters, digits"),
        "{faults:?}"
    );
    assert!(faults[1].starts_with("traces.../steady: has no source: one of poisson, "), "{faults:?}");
    assert_eq!(faults[2], "traces.daily: csv, azure_llm are several sources: a trace has one");
    assert_eq!(faults.len(), 3);
}

#[test]
fn patterns_that_would_never_end_or_fill_the_memory_are_rejected() {
    let faults = faults_with(&[
        ("poisson: {rate: 2}, length: 10m", "poisson: {rate: 1e6}, length: 1h"),
        (
            "  daily: {diurnal: {mean: 5, swing: 0.5, period: 1h}, length: 1h}",
            "  turns: {on_off: {rate: 1, on: 0s, off: 1ms}, length: 1h}
  spike: {burst: {rate: 0.1, from: 5s, until: 5s}, length: 400d}
  groups: {heavy_tailed: {groups: 1, smallest: 2, shape: 1, largest: 1, rate: 1}, length: 1h}",
        ),
    ]);
    let expected = [
        "traces.steady.length: 1h makes 3600000000 jobs, which is more than 20000000",
        "traces.turns.on_off.on: 0s is not at least 1s",
        "traces.turns.on_off.off: 1ms is not at least 1s",
        "traces.spike.length: 400d is not more than 0s and at most 366d",
        "traces.spike.burst.until: 5s is not after from, 5s",
        "traces.groups.heavy_tailed.shape: 1 is not more than 1",
        "traces.groups.heavy_tailed.largest: 1 is not at least smallest, 2",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn every_unreadable_file_is_reported_with_the_key_of_its_trace() {
    let text = VALID
        .replace("poisson: {rate: 2}", "csv: missing.csv")
        .replace("diurnal: {mean: 5, swing: 0.5, period: 1h}", "burst_gpt: missing too.csv");
    let folder = tempfile::tempdir().unwrap();
    let faults = read(&text).unwrap().load_traces(folder.path()).unwrap_err();
    let place = folder.path().display();
    let expected = [
        format!("traces.steady.csv: {place}/missing.csv: cannot be read: No such file or directory (os error 2)"),
        format!(
            "traces.daily.burst_gpt: {place}/missing too.csv: cannot be read: No such file or directory (os error 2)"
        ),
    ];
    assert_eq!(faults.to_string(), expected.join("\n"));
}
