//! What must be refused, and how: a clear error that names the field, and nothing lost or half-written.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use millrace_tests::{Gateway, Process, System};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// The digits model's manifest, so that the gateway checks inputs against a real one.
fn digits() -> String {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/digits/1");
    format!("{{gateway: {{max_body: 64KiB}}, pools: {{echo: {{model: echo}}, digits: {{model: '{models}'}}}}}}")
}

async fn problem(response: Response) -> (u16, String, Value) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status);
    let kind = problem["type"].as_str().unwrap().trim_start_matches("urn:millrace:problem:").to_owned();
    (status, kind, problem)
}

async fn refused(gateway: &Gateway, pool: &str, media_type: &str, body: &[u8]) -> (u16, String, String) {
    let response = gateway.submit(pool, media_type, body.to_vec()).await.unwrap();
    let (status, kind, problem) = problem(response).await;
    (status, kind, problem.to_string())
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
    let cases: [(&str, &str, &[u8], u16, &str); 9] = [
        ("nosuch", "text/plain", b"x", 404, "nosuch"),
        ("digits", "text/plain", b"x", 415, "text/plain"),
        ("digits", "application/json", wrong_shape.as_bytes(), 422, "shape"),
        ("echo", "text/plain", &big, 413, "65536"),
        ("echo", "text/plain", b"", 400, "body"),
        ("echo", "application/json", b"{\"input\": ", 400, "JSON"),
        ("echo", "application/json", b"{\"inputt\": {}}", 400, "inputt"),
        ("echo?id=a%2Fb", "text/plain", b"x", 400, "id"),
        ("echo?class=urgent", "text/plain", b"x", 400, "class"),
    ];
    for (pool, media_type, body, status, named) in cases {
        let (found, kind, problem) = refused(&gateway, pool, media_type, body).await;
        assert_eq!(found, status, "{pool} {media_type}: {problem}");
        assert!(!kind.is_empty() && problem.contains(named), "{problem} does not name {named}");
    }
    let unknown = gateway.request(Method::GET, "/v1/jobs/no-such-job").send().await.unwrap();
    assert_eq!(problem(unknown).await.0, 404);

    let backend = system.backend().await.unwrap();
    let gauge = backend.broker.gauge().await.unwrap();
    for pool in ["echo", "digits"] {
        assert_eq!(gauge.depth(&pool.parse().unwrap()).await.unwrap().waiting(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_jobs_and_loses_none() {
    let system = System::new("{backend: 'embedded:./data?max_size=1000000', pools: {echo: {model: echo}}}").unwrap();
    let gateway = system.gateway().await.unwrap();
    let mut accepted = Vec::new();
    let refusal = loop {
        let response = gateway.submit("echo", "text/plain", vec![b'x'; 20_000]).await.unwrap();
        if response.status() == 202 {
            let job: Value = response.json().await.unwrap();
            accepted.push(job["id"].as_str().unwrap().to_owned());
            assert!(accepted.len() < 1_000, "the limit does not hold");
            continue;
        }
        let refusal = problem(response).await;
        // There was room for the record and none for the message: not accepted, and said so.
        if refusal.1 != "not-confirmed" {
            break refusal;
        }
    };
    assert_eq!((refusal.0, refusal.1.as_str()), (507, "storage-full"), "{}", refusal.2);
    assert!(!accepted.is_empty());
    // Every job that was accepted is whole, in the ledger and in the broker.
    let backend = system.backend().await.unwrap();
    let depth = backend.broker.gauge().await.unwrap().depth(&"echo".parse().unwrap()).await.unwrap();
    assert_eq!(depth.waiting(), accepted.len() as u64);
    for id in &accepted {
        let response = gateway.request(Method::GET, &format!("/v1/jobs/{id}")).send().await.unwrap();
        assert_eq!(response.json::<Value>().await.unwrap()["state"], "queued");
    }
}

/// Runs `millrace` until it refuses; what it says.
async fn refuses(system: &System, arguments: &[&str]) -> String {
    let (status, output) = Process::start(system.folder(), arguments).unwrap().ended().await.unwrap();
    assert!(!status.success(), "{arguments:?} was not refused: {output}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused_with_all_its_faults() {
    let yaml = "{gatewayy: {}, pools: {echo: {model: 'echo:soon', scale: {target: -1, min: 5, max: 2}}}}";
    let system = System::new(yaml).unwrap();
    let output = refuses(&system, &["up", "--config", "millrace.yaml"]).await;
    for fault in ["gatewayy: unknown key", "pools.echo.model: ", "pools.echo.scale.target: -1", "pools.echo.scale.min: 5"] {
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
    // SQLite keeps `user_version`, our schema's number, big-endian at byte 60 of its header; the log would outrank it.
    let path = system.folder().join("data/millrace.db");
    std::fs::remove_file(system.folder().join("data/millrace.db-wal")).unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(60)).unwrap();
    file.write_all(&999_u32.to_be_bytes()).unwrap();
    let before = std::fs::read(&path).unwrap();
    let output = refuses(&system, &["gateway", "--config", "millrace.yaml", "--set", "gateway.listen=127.0.0.1:0"]).await;
    assert!(output.contains("millrace.db") && output.contains("999") && output.contains("newer"), "{output}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
