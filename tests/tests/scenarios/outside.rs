//! Programs that use Kafka and CloudEvents but no code of this project. They publish jobs to a topic of their own, and read
//! the results from another topic.

use std::path::PathBuf;
use std::process::Output;

use millrace_tests::{BrokerKind, BrokerUrls, System, repository, until};
use queue::JobId;
use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

/// An image like one from a camera: a seven in gray, 64 × 64 pixels.
fn shot() -> PathBuf {
    repository().join("tests/outside/seven.jpg")
}

struct Outside {
    system: System,
    /// `HOST:PORT` of the broker.
    servers: String,
    jobs: String,
    results: String,
}

/// A system whose pool `digits` takes jobs from one topic and publishes their results to another.
fn outside() -> Outside {
    let urls: BrokerUrls = BrokerKind::Kafka.urls().unwrap().unwrap();
    let servers = urls.broker.trim_start_matches("kafka://").split('?').next().unwrap().to_owned();
    let unique = JobId::generate();
    let (jobs, results) = (format!("shots-{unique}"), format!("results-{unique}"));
    let model = repository().join("models/digits/1").display().to_string();
    let yaml = format!(
        "pools: {{digits: {{model: '{model}', threads: 1, jobs_from: [{jobs}], results_to: {results}, \
         scale: {{cooldown: 5s, polling_interval: 1s, sync_interval: 1s}}}}}}"
    );
    Outside { system: System::at(urls, &yaml).unwrap(), servers, jobs, results }
}

async fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.kill_on_drop(true).output().await.unwrap();
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_pushes_a_jpeg_and_reads_its_result() {
    let Outside { system, servers, jobs, results } = outside();
    let gateway = system.gateway().await.unwrap();
    // The worker creates missing topics.
    let _worker = system.worker("digits").await.unwrap();
    let push = async |headers: &[&str]| {
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &servers, "-t", &jobs, "-P", "-e"]);
        run(kcat.args(headers.iter().flat_map(|header| ["-H", header])).arg(shot())).await
    };
    // A message that is not an event does not block other messages.
    push(&["content-type=image/jpeg"]).await;
    let event = ["ce_specversion=1.0", "ce_type=shot", "ce_source=/cameras/7", "ce_id=4711", "content-type=image/jpeg"];
    push(&event).await;

    let one_of = |kind: &'static str| {
        let (servers, results) = (&servers, &results);
        async move {
            let mut kcat = Command::new("kcat");
            kcat.args(["-b", servers, "-t", results, "-C", "-q", "-e", "-o", "beginning", "-f", "%h %s\n"]);
            let events = run(&mut kcat).await;
            Ok(events.lines().find(|line| line.contains(&format!("ce_type=millrace.job.{kind},"))).map(str::to_owned))
        }
    };
    let succeeded = until("the result is in its topic", || one_of("succeeded")).await.unwrap();
    assert!(succeeded.contains("ce_causationid=4711,"), "{succeeded}");
    assert!(succeeded.contains("ce_causationsource=/cameras/7"), "{succeeded}");
    assert!(succeeded.contains(r#"{"label":"7""#), "{succeeded}");
    let dead = until("the message that is not an event is reported as a dead job", || one_of("dead")).await.unwrap();
    assert!(dead.contains("unreadable_message"), "{dead}");

    let found = gateway.request(Method::GET, "/v1/jobs?pool=digits&source=/cameras/7&id=4711").send().await.unwrap();
    let job: Value = found.json().await.unwrap();
    assert_eq!((&job["state"], &job["pool"]), (&"succeeded".into(), &"digits".into()));
    assert_eq!(job["id"], JobId::of_event(&"digits".parse().unwrap(), "/cameras/7", "4711").unwrap().as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_producer_wakes_the_pool_and_reads_its_results() {
    let packages = std::env::var("MILLRACE_TEST_PYTHONPATH");
    let packages =
        packages.expect("set MILLRACE_TEST_PYTHONPATH to the output of scripts/python.sh, or run `make test`");
    let Outside { system, servers, jobs, results } = outside();
    let up = system.up().await.unwrap();
    let mut python = Command::new("python3");
    python.arg(repository().join("tests/outside/producer.py")).args([&servers, &jobs, &results, "image/jpeg"]);
    let printed = run(python.arg(shot()).env("PYTHONPATH", packages)).await;

    let events: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for id in ["binary", "structured"] {
        let of_it = events.iter().filter(|event| event["attributes"]["causationid"] == id);
        let mut names: Vec<_> = of_it.clone().map(|event| event["attributes"]["id"].as_str().unwrap()).collect();
        names.dedup();
        assert_eq!(names.len(), 1, "{events:?}");
        for event in of_it {
            assert_eq!(event["attributes"]["type"], "millrace.job.succeeded", "{event}");
            assert_eq!(event["data"]["predictions"][0]["label"], "7", "{event}");
        }
        let found =
            up.request(Method::GET, &format!("/v1/jobs?pool=digits&source=/cameras/7&id={id}")).send().await.unwrap();
        let job: Value = found.json().await.unwrap();
        assert_eq!((&job["state"], &job["attempts"]), (&"succeeded".into(), &1.into()));
    }
}
