//! Input that must be refused with an error that names the field. No job may be lost or written only in part.

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;

use millrace_tests::{Gateway, Process, System, repository};
use queue::JobCounts;
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// The digits model's manifest, so that the gateway checks inputs against a real one.
fn digits() -> String {
    let model = repository().join("models/digits/1").display().to_string();
    format!("{{gateway: {{max_body: 64KiB}}, pools: {{echo: {{model: echo}}, digits: {{model: '{model}'}}}}}}")
}

async fn problem(response: Response) -> (u16, String, Value) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status);
    let kind = problem["type"].as_str().unwrap().trim_start_matches("urn:millrace:problem:").to_owned();
    (status, kind, problem)
}

async fn refused(gateway: &Gateway, pool: &str, media_type: &str, body: &[u8]) -> (u16, String, Value) {
    problem(gateway.submit(pool, media_type, body.to_vec()).await.unwrap()).await
}

/// The number of files below `folder`.
fn files_below(folder: &Path) -> usize {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return 0,
        entries => entries.unwrap(),
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_a_problem_that_names_the_field_and_leaves_nothing_behind() {
    let system = System::new(&digits()).unwrap();
    let gateway = system.gateway().await.unwrap();
    let tensors = |shape: Value, count: usize| {
        json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": shape, "data": vec![0.5; count]}]}).to_string()
    };
    let big = vec![b'x'; 65 * 1024];
    let wrong_shape = tensors(json!([1, 9, 9]), 81);
    type Case<'a> = (&'a str, &'a str, &'a [u8], u16, &'a str, &'a str);
    let cases: [Case<'_>; 10] = [
        ("nosuch", "text/plain", b"x", 404, "unknown-pool", "pool"),
        ("digits", "text/plain", b"x", 415, "unsupported-media-type", "content-type"),
        ("digits", "application/json", wrong_shape.as_bytes(), 422, "invalid-input", "inputs[0].shape"),
        ("echo", "text/plain", &big, 413, "body-too-large", "body"),
        ("echo", "text/plain", b"", 400, "empty-body", "body"),
        ("echo", "application/json", b"{\"input\": ", 400, "malformed-json", "body"),
        ("echo", "application/json", b"[1]", 422, "invalid-input", "body"),
        ("echo", "application/json", b"{\"inputt\": {}}", 422, "invalid-input", "inputt"),
        ("echo?id=a%2Fb", "text/plain", b"x", 400, "bad-id", "id"),
        ("echo?class=urgent", "text/plain", b"x", 400, "bad-option", "class"),
    ];
    for (pool, media_type, body, status, name, field) in cases {
        let (found, kind, problem) = refused(&gateway, pool, media_type, body).await;
        assert_eq!((found, kind.as_str()), (status, name), "{pool} {media_type}: {problem}");
        assert_eq!(problem["field"], field, "{pool} {media_type}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    let unknown = gateway.request(Method::GET, "/v1/jobs/no-such-job").send().await.unwrap();
    assert_eq!(problem(unknown).await.0, 404);

    let backend = system.backend().await.unwrap();
    let gauge = backend.broker.gauge().await.unwrap();
    for pool in ["echo", "digits"] {
        let pool = pool.parse().unwrap();
        assert_eq!(gauge.depths(std::slice::from_ref(&pool)).await.remove(0).unwrap().waiting(), 0);
        let counts = backend.ledger.counts(std::slice::from_ref(&pool)).await.unwrap();
        assert_eq!(counts, [JobCounts { ended: counts[0].ended, ..JobCounts::default() }], "{pool:?}");
    }
    // The store has its markers, and no blob.
    for role in ["input", "output"] {
        assert_eq!(files_below(&system.folder().join("data/blobs").join(role)), 0, "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_jobs_and_loses_none() {
    let system = System::new("{broker: 'embedded:./data?max_size=1000000', pools: {echo: {model: echo}}}").unwrap();
    let gateway = system.gateway().await.unwrap();
    let mut accepted = Vec::new();
    let mut attempts = 0;
    let refusal = loop {
        attempts += 1;
        assert!(attempts <= 1_000, "the limit has no effect");
        let response = gateway.submit("echo", "text/plain", vec![b'x'; 20_000]).await.unwrap();
        if response.status() == 202 {
            let job: Value = response.json().await.unwrap();
            accepted.push(job["id"].as_str().unwrap().to_owned());
            continue;
        }
        let refusal = problem(response).await;
        // There was room for the record but not for the message. The gateway reports that the job is not accepted.
        if refusal.1 != "not-confirmed" {
            break refusal;
        }
    };
    assert_eq!((refusal.0, refusal.1.as_str()), (507, "storage-full"), "{}", refusal.2);
    assert!(!accepted.is_empty());
    // Every accepted job is complete in the ledger and in the broker.
    let backend = system.backend().await.unwrap();
    let depth = backend.broker.gauge().await.unwrap().depths(&["echo".parse().unwrap()]).await.remove(0).unwrap();
    assert_eq!(depth.waiting(), accepted.len() as u64);
    for id in &accepted {
        let response = gateway.request(Method::GET, &format!("/v1/jobs/{id}")).send().await.unwrap();
        assert_eq!(response.json::<Value>().await.unwrap()["state"], "queued");
    }
}

/// Runs `millrace`, which must end with an error. Returns its output.
async fn refuses(system: &System, arguments: &[&str]) -> String {
    let (status, output) = Process::start(system.folder(), arguments).unwrap().ended().await.unwrap();
    assert!(!status.success(), "{arguments:?} was not refused: {output}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused_with_all_its_faults() {
    let yaml = "{gatewayy: {}, pools: {echo: {model: 'echo:soon', scale: {trigger: {value: '-1'}, min: 5, max: 2}}}}";
    let system = System::new(yaml).unwrap();
    let output = refuses(&system, &["up", "--config", "millrace.yaml"]).await;
    for fault in [
        "gatewayy: unknown key",
        "pools.echo.model: ",
        "pools.echo.scale.trigger.value: \"-1\"",
        "pools.echo.scale.min: 5",
    ] {
        assert!(output.contains(fault), "{fault:?} is not in:\n{output}");
    }
    let output = refuses(&system, &["gateway", "--config", "nosuch.yaml"]).await;
    assert!(output.contains("nosuch.yaml"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_model_is_refused_with_its_path() {
    let system = System::new("pools: {digits: {model: models/nosuch/1}}").unwrap();
    for service in [&["gateway"][..], &["worker", "--pool", "digits"]] {
        let arguments = [service, &["--config", "millrace.yaml", "--set", "gateway.listen=127.0.0.1:0"]].concat();
        let output = refuses(&system, &arguments).await;
        assert!(output.contains("pools.digits.model") && output.contains("models/nosuch/1"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_file_that_is_missing_or_broken_is_refused_with_its_path() {
    let system = System::new("pools: {digits: {model: models/digits/1}}").unwrap();
    let folder = system.folder().join("models/digits/1");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = repository().join("models/digits/1/model.yaml");
    std::fs::copy(manifest, folder.join("model.yaml")).unwrap();
    let worker = ["worker", "--pool", "digits", "--config", "millrace.yaml"];
    let output = refuses(&system, &worker).await;
    assert!(output.contains("models/digits/1/model.pt: does not exist"), "{output}");

    // A worker without libtorch does not open the file, but names it too.
    std::fs::write(folder.join("model.pt"), "this is not TorchScript").unwrap();
    let output = refuses(&system, &worker).await;
    assert!(output.contains("models/digits/1/model.pt: "), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_refused_with_its_key() {
    let system = System::new("pools: {echo: {model: echo}}").unwrap();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    for (service, key) in [("gateway", "gateway.listen"), ("scaler", "scaler.listen")] {
        let set = format!("{key}={address}");
        let output = refuses(&system, &[service, "--config", "millrace.yaml", "--set", &set]).await;
        assert!(output.contains(&format!("{key}: {address}")) && output.contains("in use"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_file_from_a_newer_version_is_refused_and_left_as_it_is() {
    let system = System::new("pools: {echo: {model: echo}}").unwrap();
    let gateway = system.gateway().await.unwrap();
    gateway.process.terminate().unwrap();
    gateway.process.ended().await.unwrap();
    // SQLite stores `user_version`, the number of our schema, big-endian at byte 60 of the header. The log would override
    // it, so it is removed.
    let path = system.folder().join("data/millrace.db");
    let log = system.folder().join("data/millrace.db-wal");
    if log.exists() {
        std::fs::remove_file(log).unwrap();
    }
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(60)).unwrap();
    file.write_all(&999_u32.to_be_bytes()).unwrap();
    let before = std::fs::read(&path).unwrap();
    let output =
        refuses(&system, &["gateway", "--config", "millrace.yaml", "--set", "gateway.listen=127.0.0.1:0"]).await;
    assert!(output.contains("millrace.db") && output.contains("999") && output.contains("newer"), "{output}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
