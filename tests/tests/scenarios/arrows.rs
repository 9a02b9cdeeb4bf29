//! Which crate may know which.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{MetadataCommand, Package};
use millrace_tests::repository;

/// tests → cli → { gateway, worker, scaler, simulator } → { queue, service }; scaler, simulator → policy; proto ← scaler, cli;
/// tests also → proto, queue, service, worker.
const ARROWS: [(&str, &[&str]); 10] = [
    ("millrace-proto", &[]),
    ("millrace-queue", &[]),
    ("millrace-service", &[]),
    ("millrace-gateway", &["millrace-queue", "millrace-service"]),
    ("millrace-worker", &["millrace-queue", "millrace-service"]),
    ("millrace-policy", &["millrace-queue", "millrace-service"]),
    ("millrace-scaler", &["millrace-policy", "millrace-proto", "millrace-queue", "millrace-service"]),
    ("millrace-simulator", &["millrace-policy", "millrace-service"]),
    (
        "millrace-cli",
        &[
            "millrace-gateway",
            "millrace-policy",
            "millrace-proto",
            "millrace-queue",
            "millrace-scaler",
            "millrace-service",
            "millrace-simulator",
            "millrace-worker",
        ],
    ),
    ("millrace-tests", &["millrace-cli", "millrace-proto", "millrace-queue", "millrace-service", "millrace-worker"]),
];

/// Drivers, and the one crate that may know each. The scenarios may know protobuf too: they read what crosses the wire
/// with types of their own.
const DRIVERS: [(&str, &str); 10] = [
    ("lapin", "millrace-queue"),
    ("rdkafka", "millrace-queue"),
    ("redis", "millrace-queue"),
    ("rusqlite", "millrace-queue"),
    ("object_store", "millrace-queue"),
    ("image", "millrace-worker"),
    ("tonic-prost", "millrace-proto"),
    ("prost", "millrace-proto"),
    ("metrics-exporter-prometheus", "millrace-service"),
    ("tracing-subscriber", "millrace-service"),
];

/// What each crate depends on, be it to run, to be tested or to be built.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().manifest_path(repository().join("Cargo.toml")).no_deps().exec().unwrap();
    let of = |package: &Package| package.dependencies.iter().map(|dependency| dependency.name.clone()).collect();
    metadata.packages.iter().map(|package| (package.name.to_string(), of(package))).collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let found = dependencies();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), ARROWS.map(|(name, _)| name).into());
    for (name, allowed) in ARROWS {
        let ours = found[name].iter().filter(|dependency| found.contains_key(*dependency));
        let unallowed: Vec<_> = ours.filter(|dependency| !allowed.contains(&dependency.as_str())).collect();
        assert!(unallowed.is_empty(), "{name} must not know {unallowed:?}");
    }
}

#[test]
fn each_driver_is_known_to_one_crate() {
    for (driver, home) in DRIVERS {
        for (name, dependencies) in dependencies() {
            let reads_the_wire = name == "millrace-tests" && home == "millrace-proto";
            let may = name == home || reads_the_wire;
            assert!(may || !dependencies.contains(driver), "{name} must not know {driver}");
        }
    }
}

#[test]
fn only_the_worker_and_its_benchmark_know_tensors() {
    let knowing: Vec<_> =
        dependencies().into_iter().filter(|(_, known)| known.contains("tch")).map(|(name, _)| name).collect();
    assert_eq!(knowing, ["millrace-tests", "millrace-worker"]);
}

#[test]
fn the_queue_knows_no_telemetry_http_grpc_or_kubernetes() {
    let known = &dependencies()["millrace-queue"];
    for stranger in ["opentelemetry", "axum", "hyper", "reqwest", "tonic", "kube", "metrics"] {
        assert!(!known.contains(stranger), "millrace-queue must not know {stranger}");
    }
}
