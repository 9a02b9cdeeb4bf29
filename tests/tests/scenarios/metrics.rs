//! The metrics of the processes: each has a help text and a row in `docs/metrics.md`, and each row is a metric.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use millrace_tests::{System, repository};
use reqwest::Method;

/// The names in the tables of `docs/metrics.md`.
fn documented() -> BTreeSet<String> {
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let name = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned());
    page.lines().filter_map(name).collect()
}

/// The Rust files below the folder `src` of each crate.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "tests" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn each_metric_of_the_code_is_described_there_and_documented_and_the_reverse() {
    let mut files = Vec::new();
    sources(&repository(), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let code = std::fs::read_to_string(&file).unwrap();
        let compact: String = code.split_whitespace().collect();
        for line in code.lines() {
            let line = line.trim_start_matches("pub ");
            let constant = line.strip_prefix("const ").and_then(|line| line.split_once(": &str = \""));
            let Some((constant, rest)) = constant else { continue };
            let name = rest.trim_end_matches("\";");
            if !name.starts_with("millrace_") && !name.starts_with("process_") {
                continue;
            }
            let is_described = ["counter", "gauge", "histogram"]
                .iter()
                .any(|kind| compact.contains(&format!("describe_{kind}!({constant},")));
            assert!(is_described, "{}: {name} has no description", file.display());
            names.insert(name.to_owned());
        }
    }
    assert_eq!(names, documented());
}

/// The exported metrics, each with whether it has a help text.
fn exported(text: &str) -> Vec<(String, bool)> {
    let of = |line: &str, word: &str| Some(line.strip_prefix(word)?.split(' ').next()?.to_owned());
    let helped: BTreeSet<String> = text.lines().filter_map(|line| of(line, "# HELP ")).collect();
    let types = text.lines().filter_map(|line| of(line, "# TYPE "));
    types.map(|name| (name.clone(), helped.contains(&name))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_exported_metric_has_a_help_text_and_is_documented() {
    let yaml = "pools: {echo: {model: echo-faults, jobs: {max_attempts: 1}}}";
    let system = System::new(yaml).unwrap();
    let (gateway, scaler) = (system.gateway().await.unwrap(), system.scaler().await.unwrap());
    let worker = system.start("worker", &["--pool", "echo", "--admin", "127.0.0.1:0"]).unwrap();
    let admin = worker.prints("admin http://").await.unwrap();
    for body in ["hello", "fail:model"] {
        let id = gateway.accepted("echo", "text/plain", body.into()).await.unwrap();
        gateway.ended(&id).await.unwrap();
    }
    let of_gateway = gateway.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let of_worker = format!("{}/metrics", admin.strip_prefix("admin ").unwrap());
    let http = client::plain_http().unwrap().no_proxy().build().unwrap();
    let of_worker = millrace_tests::until("the worker has settled both jobs", || async {
        let text = http.get(&of_worker).send().await?.text().await?;
        Ok(text.contains(r#"outcome="dead""#).then_some(text))
    });
    let of_worker = of_worker.await.unwrap();
    let (_, of_scaler) = scaler.admin("/metrics").await.unwrap();

    let documented = documented();
    let mut names = BTreeSet::new();
    for (name, is_helped) in [of_gateway, of_worker, of_scaler].iter().flat_map(|text| exported(text)) {
        assert!(is_helped, "{name} has no help text");
        assert!(documented.contains(&name), "{name} is not in docs/metrics.md");
        names.insert(name);
    }
    for name in [
        "process_start_time_seconds",
        "millrace_gateway_requests_total",
        "millrace_inference_request_duration_seconds",
        "millrace_worker_queue_seconds",
        "millrace_worker_prepare_seconds",
        "millrace_worker_settle_seconds",
        "millrace_worker_cold_start_phase_seconds",
        "millrace_scaler_backlog",
    ] {
        assert!(names.contains(name), "{name} is not exported: {names:?}");
    }
}
