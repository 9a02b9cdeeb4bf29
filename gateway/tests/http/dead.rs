//! Jobs that ended as dead or failed: listed, requeued, deleted.

use std::time::Duration;

use queue::{Body, Claim, Class, Finish, Input, Job, JobId, Outcome, Role};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::doubles::{Call, Pause};
use crate::harness::{INLINE_BYTES, TestGateway, error, pool_name, problem, problem_name, start, text};

/// Publishes the jobs that are due, as upkeep does.
async fn publish_due(gateway: &TestGateway) {
    let due = gateway.ledger.due(10).await.unwrap();
    let (jobs, publications): (Vec<_>, Vec<_>) = due.into_iter().map(|due| (due.job, due.publication)).unzip();
    gateway.broker.producer().await.unwrap().publish(&jobs).await.unwrap();
    gateway.ledger.published(&publications).await.unwrap();
}

/// Submits a job and fails both its attempts.
async fn submit_dead(gateway: &mut TestGateway, id: &str, input: &'static str) {
    assert_eq!(gateway.submit(id, input).await.status(), 202);
    while !matches!(gateway.calls.recv().await, Some(Call::Published(_))) {}
    for _ in 0..2 {
        let retry = Outcome::Retry { error: error(), after: Duration::ZERO };
        gateway.work(retry).await;
        publish_due(gateway).await;
    }
}

async fn submit_failed(gateway: &mut TestGateway, id: &str) {
    assert_eq!(gateway.submit(id, "hello").await.status(), 202);
    while !matches!(gateway.calls.recv().await, Some(Call::Published(_))) {}
    gateway.work(Outcome::Failed(error())).await;
}

async fn json(response: Response) -> Value {
    assert!(response.status().is_success(), "{response:?}");
    response.json().await.unwrap()
}

async fn ids(gateway: &TestGateway, query: &str) -> (Vec<String>, Option<String>) {
    let page = json(gateway.get(&format!("/v1/dead{query}")).send().await.unwrap()).await;
    let ids = page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    (ids, page["next"].as_str().map(str::to_owned))
}

async fn delete(gateway: &TestGateway, path: &str) -> Response {
    gateway.client.request(Method::DELETE, format!("http://{}{path}", gateway.address)).send().await.unwrap()
}

#[tokio::test]
async fn the_status_of_a_dead_job_has_its_history_with_and_without_a_wait() {
    let mut gateway = start().await;
    submit_dead(&mut gateway, "a", "hello").await;
    for path in ["/v1/jobs/a", "/v1/jobs/a?wait=1s"] {
        let status = json(gateway.get(path).send().await.unwrap()).await;
        assert_eq!(status["state"], "dead", "{path}");
        let history = status["history"].as_array().unwrap();
        assert_eq!(history.len(), 2, "{path}");
        for (attempt, number) in history.iter().zip(1..) {
            assert_eq!((&attempt["number"], &attempt["worker"]), (&json!(number), &json!("worker-1")));
            assert_eq!(attempt["error"], json!({"type": "model_error", "message": "out of luck"}));
            for time in ["started_at", "ended_at"] {
                attempt[time].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            }
        }
    }
    gateway.submit("b", "hello").await;
    let status = json(gateway.get("/v1/jobs/b").send().await.unwrap()).await;
    assert_eq!(status.get("history"), None);
}

#[tokio::test]
async fn dead_jobs_are_listed_in_pages_and_failed_ones_on_request() {
    let mut gateway = start().await;
    for id in ["a", "b", "c"] {
        submit_dead(&mut gateway, id, "hello").await;
    }
    submit_failed(&mut gateway, "d").await;
    assert_eq!(ids(&gateway, "").await, (vec!["c".to_owned(), "b".to_owned(), "a".to_owned()], None));
    let (first, next) = ids(&gateway, "?pool=text&limit=2").await;
    assert_eq!(first, ["c", "b"]);
    let (second, end) = ids(&gateway, &format!("?limit=2&after={}", next.unwrap())).await;
    assert_eq!((second, end), (vec!["a".to_owned()], None));
    assert_eq!(ids(&gateway, "?state=failed").await.0, ["d"]);
    assert!(ids(&gateway, "?pool=elsewhere").await.0.is_empty());
    let page = json(gateway.get("/v1/dead?state=failed").send().await.unwrap()).await;
    assert_eq!(page["jobs"][0]["error"]["type"], "model_error");
}

#[tokio::test]
async fn a_requeued_job_runs_again_with_the_same_input() {
    let mut gateway = start().await;
    submit_dead(&mut gateway, "a", "hello").await;
    let response = gateway.post("/v1/jobs/a/requeue").send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["location"], "/v1/jobs/a");
    let status: Value = response.json().await.unwrap();
    assert_eq!((&status["state"], &status["attempts"]), (&json!("queued"), &json!(0)));
    publish_due(&gateway).await;
    let job = gateway.work(Outcome::Succeeded(text("done"))).await;
    assert_eq!(job.input.body, Body::Inline("hello".into()));
    assert_eq!(gateway.get("/v1/jobs/a/result").send().await.unwrap().text().await.unwrap(), "done");
    assert!(ids(&gateway, "").await.0.is_empty());
}

#[tokio::test]
async fn a_requeued_job_accepts_a_new_input_that_fits_its_model() {
    let mut gateway = start().await;
    let long: &str = "x".repeat(INLINE_BYTES + 1).leak();
    submit_dead(&mut gateway, "a", long).await;
    assert_eq!(gateway.blob_count(), 1);
    let requeue = |media_type: &'static str, query: &str, body: &'static str| {
        gateway.post(&format!("/v1/jobs/a/requeue{query}")).header("content-type", media_type).body(body)
    };
    for (media_type, query, body, expected) in [
        ("image/png", "", "x", (415, "unsupported-media-type")),
        ("text/plain", "?class=batch", "x", (400, "bad-option")),
        ("text/plain", "?id=b", "x", (400, "bad-option")),
        ("text/plain", "?class=batch", "", (400, "bad-option")),
        ("text/plain", "", "", (400, "empty-body")),
        ("application/json", "", "{", (400, "malformed-json")),
    ] {
        let response = requeue(media_type, query, body).send().await.unwrap();
        assert_eq!(problem_name(response).await, (expected.0, expected.1.to_owned()), "{media_type} {query} {body}");
    }
    assert_eq!(json(gateway.get("/v1/jobs/a").send().await.unwrap()).await["state"], "dead");
    assert_eq!(gateway.get("/v1/jobs/a/input").send().await.unwrap().text().await.unwrap(), long);

    assert_eq!(requeue("text/plain", "", "edited").send().await.unwrap().status(), 202);
    assert_eq!(gateway.blob_count(), 0, "the previous input is deleted");
    let input = gateway.get("/v1/jobs/a/input").send().await.unwrap();
    assert_eq!(input.headers()["content-type"], "text/plain");
    assert_eq!(input.text().await.unwrap(), "edited");
    publish_due(&gateway).await;
    let job = gateway.work(Outcome::Succeeded(text("done"))).await;
    assert_eq!(job.input.body, Body::Inline("edited".into()));
    // Nothing needs the input of a job that succeeded.
    let input = gateway.get("/v1/jobs/a/input").send().await.unwrap();
    assert_eq!(problem_name(input).await, (410, "input-deleted".to_owned()));
}

#[tokio::test]
async fn only_a_dead_or_failed_job_is_requeued_and_a_refused_requeue_leaves_no_blob() {
    let mut gateway = start().await;
    submit_failed(&mut gateway, "failed").await;
    assert_eq!(gateway.post("/v1/jobs/failed/requeue").send().await.unwrap().status(), 202);
    gateway.submit("queued", "hello").await;
    let long = "x".repeat(INLINE_BYTES + 1);
    let request = gateway.post("/v1/jobs/queued/requeue").header("content-type", "text/plain").body(long);
    let answer = problem(request.send().await.unwrap()).await;
    assert_eq!((&answer["type"], &answer["state"]), (&json!("urn:millrace:problem:job-not-dead"), &json!("queued")));
    assert_eq!(gateway.blob_count(), 0);
    let response = gateway.post("/v1/jobs/ghost/requeue").send().await.unwrap();
    assert_eq!(problem_name(response).await, (404, "unknown-job".to_owned()));
}

#[tokio::test]
async fn an_ended_job_is_deleted_on_request_and_an_open_one_is_not() {
    let mut gateway = start().await;
    submit_dead(&mut gateway, "a", "x".repeat(INLINE_BYTES + 1).leak()).await;
    assert_eq!(delete(&gateway, "/v1/jobs/a").await.status(), 204);
    assert_eq!(gateway.blob_count(), 0);
    for path in ["/v1/jobs/a", "/v1/jobs/a/input"] {
        assert_eq!(gateway.get(path).send().await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(problem_name(delete(&gateway, "/v1/jobs/a").await).await, (404, "unknown-job".to_owned()));
    gateway.submit("b", "hello").await;
    let answer = problem(delete(&gateway, "/v1/jobs/b").await).await;
    assert_eq!((&answer["status"], &answer["state"]), (&json!(409), &json!("queued")));
    assert_eq!(answer["type"], "urn:millrace:problem:job-not-ended");
    // Its message still waits in the broker.
    gateway.post("/v1/jobs/b/cancel").send().await.unwrap().error_for_status().unwrap();
    assert_eq!(problem_name(delete(&gateway, "/v1/jobs/b").await).await, (409, "record-needed".to_owned()));
}

#[tokio::test]
async fn the_dead_jobs_of_a_pool_are_purged_and_its_failed_jobs_stay() {
    let mut gateway = start().await;
    submit_dead(&mut gateway, "a", "hello").await;
    submit_dead(&mut gateway, "b", "hello").await;
    submit_failed(&mut gateway, "c").await;
    for path in ["/v1/dead", "/v1/dead?state=dead", "/v1/dead?pool=text&limit=1", "/v1/dead?pool=text&state=queued"] {
        assert_eq!(problem_name(delete(&gateway, path).await).await, (400, "bad-query".to_owned()), "{path}");
    }
    let nothing = json!({"purged": 0, "more": false});
    assert_eq!(json(delete(&gateway, "/v1/dead?pool=elsewhere").await).await, nothing);
    assert_eq!(json(delete(&gateway, "/v1/dead?pool=text").await).await, json!({"purged": 2, "more": false}));
    assert!(ids(&gateway, "").await.0.is_empty());
    assert_eq!(ids(&gateway, "?state=failed").await.0, ["c"]);
}

/// Adds a failed job that was never published and whose input is a blob.
async fn add_failed(gateway: &TestGateway, id: &str) {
    let id: JobId = id.parse().unwrap();
    let body = gateway.blobs.body(&id, Role::Input, vec![b'x'; INLINE_BYTES + 1].into()).await.unwrap();
    let job = Job {
        id,
        pool: pool_name(),
        class: Class::Standard,
        input: Input { media_type: "text/plain".to_owned(), body },
        created_at: jiff::Timestamp::now(),
        deadline_at: None,
        max_attempts: 1,
        retention: Duration::from_secs(3600),
        trace_parent: None,
        origin: None,
    };
    let Claim::Granted { lease, .. } = gateway.claim(&job).await else { panic!("the job is new") };
    gateway.ledger.finish(vec![Finish { lease, outcome: Outcome::Failed(error()) }]).await.unwrap();
}

#[tokio::test]
async fn a_large_purge_is_done_in_rounds_and_leaves_no_blob() {
    let gateway = start().await;
    for number in 0..101 {
        add_failed(&gateway, &format!("job-{number}")).await;
    }
    let path = "/v1/dead?pool=text&state=failed";
    assert_eq!(json(delete(&gateway, path).await).await, json!({"purged": 100, "more": true}));
    assert_eq!(gateway.blob_count(), 1);
    assert_eq!(json(delete(&gateway, path).await).await, json!({"purged": 1, "more": false}));
    assert_eq!(gateway.blob_count(), 0);
}

#[tokio::test]
async fn a_deleted_job_leaves_no_blob_even_if_the_client_disconnects() {
    let gateway = start().await;
    add_failed(&gateway, "a").await;
    let ((reached, has_reached), (mut release, released)) = (oneshot::channel(), oneshot::channel());
    *gateway.forget_pause.lock().unwrap() = Some(Pause { reached, released });
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"DELETE /v1/jobs/a HTTP/1.1\r\nhost: millrace\r\n\r\n").await.unwrap();
    has_reached.await.unwrap();
    drop(client);
    // If the disconnect had dropped the work, the receiver of the pause would be dropped at once.
    assert!(timeout(Duration::from_millis(300), release.closed()).await.is_err());
    release.send(()).unwrap();
    let mut polls = tokio::time::interval(Duration::from_millis(1));
    let deleted = async {
        while gateway.blob_count() > 0 {
            polls.tick().await;
        }
    };
    timeout(Duration::from_secs(60), deleted).await.unwrap();
}

#[tokio::test]
async fn an_unavailable_ledger_is_reported_as_a_problem() {
    let gateway = start().await;
    *gateway.ledger_error.lock().unwrap() = Some(queue::ErrorKind::Unavailable);
    let requests = [
        gateway.get("/v1/dead"),
        gateway.get("/v1/jobs/a/input"),
        gateway.post("/v1/jobs/a/requeue"),
        gateway.client.delete(format!("http://{}/v1/jobs/a", gateway.address)),
        gateway.client.delete(format!("http://{}/v1/dead?pool=text", gateway.address)),
    ];
    for request in requests {
        assert_eq!(problem_name(request.send().await.unwrap()).await, (503, "unavailable".to_owned()));
    }
}
