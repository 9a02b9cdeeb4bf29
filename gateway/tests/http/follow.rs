//! Jobs are followed to their end.

use std::time::Duration;

use queue::{BlobRef, Body, Class, Input, Job, JobState, Outcome, Output, Role};
use serde_json::{Value, json};

use crate::doubles::Call;
use crate::harness::{TestGateway, error, pool_name, problem, problem_name, start, start_with_short_polls, text};

async fn state(gateway: &TestGateway, path: &str) -> String {
    let status: Value = gateway.get(path).send().await.unwrap().json().await.unwrap();
    status["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_long_poll_is_answered_when_the_job_ends() {
    let mut gateway = start().await;
    gateway.submit("a", "hello").await;
    let polling = gateway.get("/v1/jobs/a?wait=30s").send();
    let polling = tokio::spawn(polling);
    while gateway.calls.recv().await != Some(Call::Watched) {}
    gateway.work(Outcome::Succeeded(text("done"))).await;
    let status: Value = polling.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(status["state"], "succeeded");
    assert_eq!(status["attempts"], 1);
    for time in ["created_at", "started_at", "finished_at"] {
        status[time].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
}

#[tokio::test]
async fn a_long_poll_that_times_out_returns_the_current_state() {
    let gateway = start_with_short_polls().await;
    gateway.submit("a", "hello").await;
    assert_eq!(state(&gateway, "/v1/jobs/a?wait=30s").await, "queued");
    let response = gateway.get("/v1/jobs/a/result?wait=30s").send().await.unwrap();
    assert_eq!(problem_name(response).await, (409, "job-not-ended".to_owned()));
}

#[tokio::test]
async fn a_result_is_the_output_of_the_model() {
    let gateway = start().await;
    gateway.submit("a", "hello").await;
    let early = gateway.get("/v1/jobs/a/result").send().await.unwrap();
    assert_eq!(early.headers()["retry-after"], "1");
    assert_eq!(problem(early).await["state"], "queued");
    gateway.work(Outcome::Succeeded(text("done"))).await;
    let response = gateway.get("/v1/jobs/a/result?wait=30s").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(response.headers()["millrace-job-id"], "a");
    assert_eq!(response.text().await.unwrap(), "done");
}

#[tokio::test]
async fn the_result_of_a_job_without_output_is_a_problem_with_the_reason() {
    let gateway = start().await;
    let result = async |id: &str| problem(gateway.get(&format!("/v1/jobs/{id}/result")).send().await.unwrap()).await;

    gateway.submit("failed", "hello").await;
    gateway.work(Outcome::Failed(error())).await;
    let failed = result("failed").await;
    assert_eq!((failed["status"].as_u64(), &failed["state"]), (Some(422), &json!("failed")));
    assert_eq!(failed["error"], json!({"type": "model_error", "message": "out of luck"}));

    gateway.submit("dead", "hello").await;
    for _ in 0..2 {
        let retry = Outcome::Retry { error: error(), after: std::time::Duration::ZERO };
        let job = gateway.work(retry).await;
        let due = gateway.ledger.due(10).await.unwrap();
        let producer = gateway.broker.producer().await.unwrap();
        let due: Vec<_> = due.into_iter().map(|due| due.job).filter(|due| due.id == job.id).collect();
        if !due.is_empty() {
            producer.publish(&due).await.unwrap();
        }
    }
    let dead = result("dead").await;
    assert_eq!((dead["status"].as_u64(), &dead["state"]), (Some(410), &json!("dead")));
    assert_eq!(dead["error"]["message"], "out of luck");

    gateway.submission("?id=expired&deadline=1m", "hello").send().await.unwrap();
    gateway.clock.advance(std::time::Duration::from_secs(120));
    gateway.work(Outcome::Succeeded(text("late"))).await;
    let expired = result("expired").await;
    assert_eq!((expired["status"].as_u64(), &expired["state"]), (Some(410), &json!("expired")));
    assert_eq!(state(&gateway, "/v1/jobs/expired").await, "expired");
}

#[tokio::test]
async fn cancelling_ends_an_open_job_and_may_be_repeated() {
    let gateway = start().await;
    gateway.submit("a", "hello").await;
    for _ in 0..2 {
        let response = gateway.post("/v1/jobs/a/cancel").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap()["state"], "cancelled");
    }
    let result = gateway.get("/v1/jobs/a/result").send().await.unwrap();
    assert_eq!(problem_name(result).await, (410, "job-cancelled".to_owned()));
}

#[tokio::test]
async fn a_job_that_has_ended_cannot_be_cancelled() {
    let gateway = start().await;
    gateway.submit("a", "hello").await;
    gateway.work(Outcome::Succeeded(text("done"))).await;
    let response = gateway.post("/v1/jobs/a/cancel").send().await.unwrap();
    assert_eq!(problem_name(response).await, (409, "job-ended".to_owned()));
    let record = gateway.ledger.get(&"a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_job_that_was_never_submitted_is_unknown() {
    let gateway = start().await;
    for path in ["/v1/jobs/ghost", "/v1/jobs/ghost?wait=30s", "/v1/jobs/ghost/result", "/v1/jobs/ghost/result?wait=30s"]
    {
        let response = gateway.get(path).send().await.unwrap();
        assert_eq!(problem_name(response).await, (404, "unknown-job".to_owned()), "{path}");
    }
    let response = gateway.post("/v1/jobs/ghost/cancel").send().await.unwrap();
    assert_eq!(problem_name(response).await, (404, "unknown-job".to_owned()));
}

#[tokio::test]
async fn a_job_is_found_by_the_pool_source_and_id_of_its_event() {
    let gateway = start().await;
    let id = queue::JobId::of_event(&"text".parse().unwrap(), "/cameras/7", "4711").unwrap();
    // A worker opens the record of a job that arrives as an event.
    let job = Job {
        id,
        pool: pool_name(),
        class: Class::Standard,
        input: Input { media_type: "text/plain".to_owned(), body: Body::Inline("hello".into()) },
        created_at: jiff::Timestamp::now(),
        deadline_at: None,
        max_attempts: 1,
        retention: Duration::from_secs(3600),
        trace_parent: None,
        origin: None,
    };
    gateway.ledger.submit(&[job]).await.unwrap();
    assert_eq!(state(&gateway, "/v1/jobs?pool=text&source=/cameras/7&id=4711").await, "queued");
    for (query, kind) in [
        ("?pool=text&source=/cameras/7&id=4712", (404, "unknown-job")),
        ("?pool=other&source=/cameras/7&id=4711", (404, "unknown-job")),
        ("?pool=text&source=/cameras/7", (400, "bad-query")),
        ("?source=/cameras/7&id=4711", (400, "bad-query")),
        ("?pool=A&source=/cameras/7&id=4711", (400, "bad-query")),
        ("?pool=text&id=4711&source=", (400, "bad-query")),
        ("?pool=text&source=/millrace&id=a/b", (400, "bad-query")),
        ("?pool=text&source=/s&id=1&colour=red", (400, "bad-query")),
        ("", (400, "bad-query")),
    ] {
        let response = gateway.get(&format!("/v1/jobs{query}")).send().await.unwrap();
        assert_eq!(problem_name(response).await, (kind.0, kind.1.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_large_result_is_sent_whole_and_a_damaged_one_is_cut_off() {
    let gateway = start().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let stored = gateway.blobs.body(&"a".parse().unwrap(), Role::Output, bytes.clone().into()).await.unwrap();
    let Body::Reference(blob) = stored else { panic!("{stored:?}") };
    let damaged = BlobRef { sha256: Some("00".repeat(32)), ..blob.clone() };
    for (id, blob) in [("a", blob), ("b", damaged)] {
        gateway.submit(id, "hello").await;
        let output = Output { media_type: "text/plain".to_owned(), body: Body::Reference(blob) };
        gateway.work(Outcome::Succeeded(output)).await;
    }
    let whole = gateway.get("/v1/jobs/a/result").send().await.unwrap();
    assert_eq!((whole.status().as_u16(), whole.content_length()), (200, Some(3_000_000)));
    assert!(whole.bytes().await.unwrap() == bytes);
    let cut_off = gateway.get("/v1/jobs/b/result").send().await.unwrap();
    cut_off.bytes().await.unwrap_err();
}
