//! Dead jobs, listed and managed through a real gateway.

use std::sync::Arc;
use std::time::Duration;

use backends::BackendUrls;
use clap::Parser;
use gateway::{Gateway, GatewaySettings, Pool};
use model::{InputCheck, InputFault, InputFaultKind};
use queue::{
    Backend, Blobs, Body, Claim, ClaimRequest, Class, Finish, Input, Job, JobErrorKind, JobState, Outcome, WorkerId,
};
use serde_json::Value;
use service::Health;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;

fn text_only(media_type: &str, _: &[u8]) -> Result<(), InputFault> {
    if media_type == "text/plain" {
        return Ok(());
    }
    let message = format!("{media_type:?} is not text/plain");
    Err(InputFault::new(InputFaultKind::MediaType, "content-type", message))
}

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: DeadArgs,
}

struct TestGateway {
    folder: TempDir,
    backend: Backend,
    gateway: String,
}

impl TestGateway {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("embedded:{}", folder.path().join("data").display()).parse().unwrap();
        let backend = backends::open(&BackendUrls::new(url, None).unwrap()).await.unwrap();
        let pool = Pool {
            input_check: InputCheck::new(text_only),
            max_attempts: 1,
            retention: Duration::from_secs(60),
            deadline: None,
        };
        let gateway = Gateway {
            pools: [("digits".parse().unwrap(), pool)].into(),
            ledger: Arc::clone(&backend.ledger),
            producer: backend.broker.producer().await.unwrap(),
            blobs: Blobs::directory(&folder.path().join("blobs"), 1024).unwrap(),
            settings: GatewaySettings::default(),
            health: Health::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(gateway::run(listener, gateway, CancellationToken::new()));
        Self { folder, backend, gateway: format!("http://{address}") }
    }

    /// Adds a job that has ended without success.
    async fn add(&self, id: &str, state: JobState) {
        let job = Job {
            id: id.parse().unwrap(),
            pool: "digits".parse().unwrap(),
            class: Class::Standard,
            input: Input { media_type: "text/plain".to_owned(), body: Body::Inline(format!("input of {id}").into()) },
            created_at: jiff::Timestamp::now(),
            deadline_at: None,
            max_attempts: 1,
            retention: Duration::from_secs(60),
            trace_parent: None,
            origin: None,
        };
        let request = ClaimRequest::new(job, false);
        let worker = WorkerId::new("worker-1");
        let claims = self.backend.ledger.claim(&worker, vec![request], Duration::from_secs(30));
        let Some(Claim::Granted { lease, .. }) = claims.await.unwrap().pop() else { panic!("{id} is not new") };
        let error = JobErrorKind::ModelError.error(format!("\u{1b}[31m{id} is not a digit"));
        let outcome = match state {
            JobState::Dead => Outcome::Retry { error, after: Duration::ZERO },
            _ => Outcome::Failed(error),
        };
        self.backend.ledger.finish(vec![Finish { lease, outcome }]).await.unwrap();
    }

    async fn state(&self, id: &str) -> Option<JobState> {
        self.backend.ledger.get(&id.parse().unwrap()).await.unwrap().map(|record| record.state)
    }

    /// Runs the command line. Returns whether it succeeded for all jobs, and its output.
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let line = ["dead", "--gateway", &self.gateway].into_iter().chain(arguments.iter().copied());
        let mut out = Vec::new();
        let done = run(CommandLine::try_parse_from(line)?.args, &mut out).await?;
        Ok((done, String::from_utf8(out).unwrap()))
    }

    async fn succeeds(&self, arguments: &[&str]) -> String {
        let (done, text) = self.run(arguments).await.unwrap();
        assert!(done, "{text}");
        text
    }
}

#[tokio::test]
async fn dead_jobs_are_listed_and_failed_jobs_on_request() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.succeeds(&["list"]).await, "no dead jobs\n");
    for (id, state) in [("a", JobState::Dead), ("b", JobState::Dead), ("c", JobState::Failed)] {
        gateway.add(id, state).await;
    }
    let text = gateway.succeeds(&["list", "--pool", "digits"]).await;
    assert!(text.contains("a is not a digit") && text.contains("model_error") && text.contains("1 of 1"), "{text}");
    assert!(!text.contains("c is not a digit") && !text.contains('\u{1b}'), "{text}");
    assert!(gateway.succeeds(&["list", "--state", "failed"]).await.contains("c is not a digit"));
    let lines = gateway.succeeds(&["list", "--json", "--limit", "1"]).await;
    assert_eq!(lines.lines().count(), 1);
    assert!(serde_json::from_str::<Value>(&lines).unwrap()["id"].is_string());
}

#[tokio::test]
async fn a_long_list_is_fetched_page_by_page() {
    let gateway = TestGateway::start().await;
    for number in 0..502 {
        gateway.add(&format!("job-{number}"), JobState::Dead).await;
    }
    let lines = gateway.succeeds(&["list", "--json", "--limit", "1000"]).await;
    let ids: std::collections::BTreeSet<String> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string()).collect();
    assert_eq!(ids.len(), 502);
}

#[tokio::test]
async fn a_job_is_shown_with_its_history_and_its_input_is_saved() {
    let gateway = TestGateway::start().await;
    gateway.add("a", JobState::Dead).await;
    let file = gateway.folder.path().join("input.txt");
    let text = gateway.succeeds(&["show", "a", "--save-input", file.to_str().unwrap()]).await;
    for part in ["state      dead", "worker-1", "model_error: ", "a is not a digit", "text/plain"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "input of a");
    let file = gateway.folder.path().join("again.txt");
    let printed = gateway.succeeds(&["show", "a", "--json", "--save-input", file.to_str().unwrap()]).await;
    assert_eq!(std::fs::read_to_string(file).unwrap(), "input of a");
    let line: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(line["history"][0]["worker"], "worker-1");
    let error = gateway.run(&["show", "ghost"]).await.unwrap_err().to_string();
    assert!(error.contains("\"ghost\""), "{error}");
}

#[tokio::test]
async fn jobs_are_requeued_by_id_or_by_pool_and_each_refusal_is_reported() {
    let gateway = TestGateway::start().await;
    for id in ["a", "b", "c"] {
        gateway.add(id, JobState::Dead).await;
    }
    gateway.add("d", JobState::Failed).await;
    let (done, text) = gateway.run(&["requeue", "a", "ghost", "d"]).await.unwrap();
    assert!(!done && text.contains("ghost: ") && text.ends_with("2 of 3 jobs requeued\n"), "{text}");
    assert_eq!(gateway.succeeds(&["requeue", "--pool", "digits"]).await, "2 of 2 jobs requeued\n");
    for id in ["a", "b", "c", "d"] {
        assert_eq!(gateway.state(id).await, Some(JobState::Queued));
    }
}

#[tokio::test]
async fn a_job_is_requeued_with_another_input() {
    let gateway = TestGateway::start().await;
    gateway.add("a", JobState::Failed).await;
    let file = gateway.folder.path().join("edited.txt");
    std::fs::write(&file, "edited").unwrap();
    let file = file.to_str().unwrap();
    let (done, text) = gateway.run(&["requeue", "a", "--input", file, "--media-type", "image/png"]).await.unwrap();
    assert!(!done && text.contains("is not text/plain"), "{text}");
    assert!(gateway.run(&["requeue", "a", "b", "--input", file]).await.is_err());
    let empty = gateway.folder.path().join("empty.txt");
    std::fs::write(&empty, "").unwrap();
    let error = gateway.run(&["requeue", "a", "--input", empty.to_str().unwrap()]).await.unwrap_err().to_string();
    assert!(error.contains("empty.txt is empty"), "{error}");
    assert_eq!(gateway.state("a").await, Some(JobState::Failed));
    gateway.succeeds(&["requeue", "a", "--input", file]).await;
    let input = gateway.backend.ledger.input(&"a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((input.media_type.as_str(), input.body), ("text/plain", Body::Inline("edited".into())));
}

#[tokio::test]
async fn jobs_are_purged_by_id_and_a_whole_pool_only_with_yes() {
    let gateway = TestGateway::start().await;
    for id in ["a", "b", "c"] {
        gateway.add(id, JobState::Dead).await;
    }
    gateway.add("d", JobState::Failed).await;
    assert_eq!(gateway.succeeds(&["purge", "a"]).await, "1 of 1 jobs purged\n");
    assert_eq!(gateway.state("a").await, None);
    let error = gateway.run(&["purge", "--pool", "digits"]).await.unwrap_err().to_string();
    assert!(error.starts_with("--yes: is missing"), "{error}");
    assert_eq!(gateway.state("b").await, Some(JobState::Dead));
    assert_eq!(gateway.succeeds(&["purge", "--pool", "digits", "--yes"]).await, "2 dead jobs of pool digits purged\n");
    assert_eq!((gateway.state("b").await, gateway.state("d").await), (None, Some(JobState::Failed)));
}

#[tokio::test]
async fn a_pool_with_many_dead_jobs_is_purged_completely() {
    let gateway = TestGateway::start().await;
    for number in 0..201 {
        gateway.add(&format!("job-{number}"), JobState::Dead).await;
    }
    assert_eq!(
        gateway.succeeds(&["purge", "--pool", "digits", "--yes"]).await,
        "201 dead jobs of pool digits purged\n"
    );
    assert_eq!(gateway.succeeds(&["list"]).await, "no dead jobs\n");
}

#[tokio::test]
async fn contradictory_arguments_are_refused_before_anything_is_done() {
    let gateway = TestGateway::start().await;
    for arguments in [
        &["requeue"][..],
        &["purge"],
        &["purge", "a", "--pool", "digits"],
        &["requeue", "--pool", "digits", "--input", "file"],
        &["requeue", "a", "--media-type", "text/plain"],
        &["list", "--state", "queued"],
        &["show", "a b"],
    ] {
        assert!(gateway.run(arguments).await.is_err(), "{arguments:?}");
    }
}

#[tokio::test]
async fn an_unreachable_gateway_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let line = CommandLine::try_parse_from(["dead", "requeue", "a", "b", "--gateway", &gateway]).unwrap();
    let error = run(line.args, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("the gateway at {gateway} cannot be reached")), "{error}");
}
