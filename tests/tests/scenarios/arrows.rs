//! Which crate may depend on which.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use millrace_tests::repository;

/// tests → cli → { gateway, worker, scaler, simulator, client, backends };
/// gateway, worker → { model, queue, service }; scaler → { policy, queue, service, proto };
/// simulator → { policy, model }; policy → queue; both also → service, for the durations and faults of a configuration;
/// backends → drivers → queue; client → none of them (proto is allowed).
const ARROWS: [(&str, &[&str]); 18] = [
    ("millrace-proto", &[]),
    ("millrace-model", &[]),
    ("millrace-queue", &[]),
    ("millrace-service", &[]),
    ("millrace-queue-contract", &["millrace-queue"]),
    // Its feature for the tests of other crates contains the contract suites.
    ("millrace-queue-embedded", &["millrace-queue", "millrace-queue-contract"]),
    ("millrace-queue-kafka", &["millrace-queue"]),
    ("millrace-queue-rabbitmq", &["millrace-queue"]),
    ("millrace-queue-redis", &["millrace-queue"]),
    (
        "millrace-backends",
        &[
            "millrace-queue",
            "millrace-queue-embedded",
            "millrace-queue-kafka",
            "millrace-queue-rabbitmq",
            "millrace-queue-redis",
        ],
    ),
    ("millrace-gateway", &["millrace-model", "millrace-proto", "millrace-queue", "millrace-service"]),
    ("millrace-worker", &["millrace-model", "millrace-queue", "millrace-service"]),
    ("millrace-policy", &["millrace-queue", "millrace-service"]),
    ("millrace-scaler", &["millrace-policy", "millrace-proto", "millrace-queue", "millrace-service"]),
    ("millrace-simulator", &["millrace-model", "millrace-policy", "millrace-queue", "millrace-service"]),
    ("millrace-client", &["millrace-proto"]),
    (
        "millrace-cli",
        &[
            "millrace-client",
            "millrace-gateway",
            "millrace-model",
            "millrace-policy",
            "millrace-proto",
            "millrace-queue",
            "millrace-backends",
            "millrace-scaler",
            "millrace-service",
            "millrace-simulator",
            "millrace-worker",
        ],
    ),
    (
        "millrace-tests",
        &[
            "millrace-cli",
            "millrace-client",
            "millrace-model",
            "millrace-proto",
            "millrace-queue",
            "millrace-backends",
            "millrace-service",
            "millrace-worker",
        ],
    ),
];

/// Only for tests, every crate may use the client, the contract suites and a backend.
const FOR_TESTS: [&str; 4] =
    ["millrace-backends", "millrace-client", "millrace-queue-contract", "millrace-queue-embedded"];

/// Libraries, and the crates that may depend on each. The scenarios may use protobuf too: they check messages with types
/// of their own.
const LIBRARIES: [(&str, &[&str]); 13] = [
    ("lapin", &["millrace-queue-rabbitmq"]),
    ("rdkafka", &["millrace-queue-kafka"]),
    ("redis", &["millrace-queue-redis"]),
    ("rusqlite", &["millrace-queue-embedded"]),
    ("object_store", &["millrace-backends", "millrace-queue"]),
    ("image", &["millrace-model", "millrace-worker"]),
    ("tonic-prost", &["millrace-proto", "millrace-tests"]),
    ("prost", &["millrace-proto", "millrace-tests"]),
    ("metrics-exporter-prometheus", &["millrace-service"]),
    ("tracing-subscriber", &["millrace-service"]),
    ("opentelemetry_sdk", &["millrace-service"]),
    ("opentelemetry-otlp", &["millrace-service"]),
    ("opentelemetry-proto", &["millrace-service", "millrace-tests"]),
];

/// Clients of brokers. A change of one must not rebuild a service.
const DRIVERS: [&str; 4] = ["lapin", "rdkafka", "redis", "rusqlite"];

/// The crates that do not depend on a driver, directly or through other crates.
const FREE_OF_DRIVERS: [&str; 7] = [
    "millrace-client",
    "millrace-gateway",
    "millrace-policy",
    "millrace-scaler",
    "millrace-service",
    "millrace-simulator",
    "millrace-worker",
];

fn metadata(command: &mut MetadataCommand) -> Metadata {
    command.manifest_path(repository().join("Cargo.toml")).exec().unwrap()
}

/// The direct dependencies of each crate, of these kinds.
fn dependencies(kinds: &[DependencyKind]) -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata(MetadataCommand::new().no_deps());
    let of = |package: &Package| {
        let dependencies = package.dependencies.iter().filter(|dependency| kinds.contains(&dependency.kind));
        dependencies.map(|dependency| dependency.name.clone()).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), of(package))).collect()
}

const ALL_KINDS: [DependencyKind; 3] = [DependencyKind::Normal, DependencyKind::Development, DependencyKind::Build];

#[test]
fn arrows_between_crates_point_one_way() {
    let normal = dependencies(&[DependencyKind::Normal, DependencyKind::Build]);
    let for_tests = dependencies(&[DependencyKind::Development]);
    for name in normal.keys() {
        let Some((_, allowed)) = ARROWS.iter().find(|(row, _)| row == name) else {
            panic!("{name} has no row in this test: add it, with the crates that it may depend on");
        };
        let unallowed = |found: &BTreeSet<String>, more: &[&str]| -> Vec<String> {
            let ours = found.iter().filter(|dependency| normal.contains_key(*dependency));
            let is_allowed = |dependency: &str| dependency == name || allowed.contains(&dependency);
            ours.filter(|dependency| !is_allowed(dependency) && !more.contains(&dependency.as_str())).cloned().collect()
        };
        let found = [unallowed(&normal[name], &[]), unallowed(&for_tests[name], &FOR_TESTS)].concat();
        assert!(found.is_empty(), "{name} must not depend on {found:?}");
    }
}

#[test]
fn each_library_is_used_by_its_crates_alone() {
    for (library, homes) in LIBRARIES {
        for (name, dependencies) in dependencies(&ALL_KINDS) {
            let is_allowed = homes.contains(&name.as_str());
            assert!(is_allowed || !dependencies.contains(library), "{name} must not depend on {library}");
        }
    }
}

#[test]
fn only_the_worker_and_its_benchmark_depend_on_libtorch() {
    let dependencies = dependencies(&ALL_KINDS).into_iter();
    let found: Vec<_> = dependencies.filter(|(_, found)| found.contains("tch")).map(|(name, _)| name).collect();
    assert_eq!(found, ["millrace-tests", "millrace-worker"]);
}

#[test]
fn the_queue_depends_on_no_telemetry_http_grpc_or_kubernetes() {
    let found = &dependencies(&ALL_KINDS)["millrace-queue"];
    for library in ["opentelemetry", "axum", "hyper", "reqwest", "tonic", "kube", "metrics"] {
        assert!(!found.contains(library), "millrace-queue must not depend on {library}");
    }
}

#[test]
fn the_policy_depends_on_no_runtime_grpc_or_tls() {
    let found = &dependencies(&[DependencyKind::Normal])["millrace-policy"];
    for library in ["tokio", "tonic", "rustls"] {
        assert!(!found.contains(library), "millrace-policy must not depend on {library}");
    }
}

#[test]
fn services_reach_no_driver() {
    // One platform is sufficient. Without a platform, cargo would fetch the crates of every platform.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = metadata(MetadataCommand::new().other_options(["--locked".to_owned(), platform]));
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let nodes = &metadata.resolve.as_ref().unwrap().nodes;
    let next: BTreeMap<&PackageId, Vec<&PackageId>> = nodes
        .iter()
        .map(|node| {
            let is_normal = |dependency: &&cargo_metadata::NodeDep| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            };
            (&node.id, node.deps.iter().filter(is_normal).map(|dependency| &dependency.pkg).collect())
        })
        .collect();
    for name in FREE_OF_DRIVERS {
        let start = names.iter().find(|(_, found)| **found == name).map(|(id, _)| *id);
        let start = start.unwrap_or_else(|| panic!("there is no crate {name}"));
        let mut came_from: BTreeMap<&PackageId, &PackageId> = BTreeMap::new();
        let mut waiting = vec![start];
        while let Some(package) = waiting.pop() {
            for dependency in &next[package] {
                if !came_from.contains_key(dependency) {
                    came_from.insert(dependency, package);
                    waiting.push(dependency);
                }
            }
        }
        let ways = came_from.keys().filter(|id| DRIVERS.contains(&names[**id])).map(|reached| {
            let way = std::iter::successors(Some(*reached), |id| came_from.get(id).copied().filter(|_| **id != *start));
            way.map(|id| names[id]).collect::<Vec<_>>().join(" ← ")
        });
        let ways: Vec<String> = ways.collect();
        assert!(ways.is_empty(), "{name} reaches a driver: {}", ways.join("; "));
    }
}
