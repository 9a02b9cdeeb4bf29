//! The submission of jobs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use model::TENSORS_MEDIA_TYPE;
use queue::{Body, Class, ErrorKind, JobError, JobState, Outcome, Publication};
use serde_json::{Value, json};

use crate::doubles::Call;
use crate::harness::{pool_name, problem, problem_name, start, start_with_short_polls, text};

#[tokio::test]
async fn an_accepted_job_is_in_the_ledger_and_in_the_broker_and_can_be_followed() {
    let gateway = start().await;
    let trace_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let response =
        gateway.submission("?class=premium", "hello").header("traceparent", trace_parent).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let id_header = response.headers()["millrace-job-id"].to_str().unwrap().to_owned();
    let accepted: Value = response.json().await.unwrap();
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(id, id_header);
    assert_eq!(location, format!("/v1/jobs/{id}"));
    assert_eq!(accepted["state"], "queued");
    assert_eq!(accepted["max_attempts"], 2);
    let links = json!({
        "status": format!("/v1/jobs/{id}"),
        "result": format!("/v1/jobs/{id}/result"),
        "cancel": format!("/v1/jobs/{id}/cancel"),
    });
    assert_eq!(accepted["links"], links);

    let status: Value = gateway.get(&location).send().await.unwrap().json().await.unwrap();
    assert_eq!(status, accepted);

    let job = gateway.work(Outcome::Succeeded(text("done"))).await;
    assert_eq!(job.id.as_str(), id);
    assert_eq!((job.pool, job.class), (pool_name(), Class::Premium));
    assert_eq!(job.input.media_type, "text/plain");
    assert_eq!(job.input.body, Body::Inline("hello".into()));
    assert_eq!(job.trace_parent.as_deref(), Some(trace_parent));
    assert_eq!(job.retention, Duration::from_secs(3600));
}

#[tokio::test]
async fn a_submission_that_prefers_to_wait_returns_the_result() {
    let gateway = start().await;
    let submitting = gateway.submission("?id=a", "hello").header("prefer", "wait=10").send();
    let (response, _) = tokio::join!(submitting, gateway.work(Outcome::Succeeded(text("done"))));
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["millrace-job-id"], "a");
    assert_eq!(response.headers()["preference-applied"], "wait=10");
    assert_eq!(response.text().await.unwrap(), "done");
}

#[tokio::test]
async fn a_submission_whose_wait_times_out_returns_where_to_follow_the_job() {
    let gateway = start_with_short_polls().await;
    let response = gateway.submission("", "hello").header("prefer", "wait=10").send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert!(response.headers().contains_key("location"));
    assert_eq!(response.json::<Value>().await.unwrap()["state"], "queued");
}

#[tokio::test]
async fn a_submission_that_waits_for_a_failing_job_returns_the_reason() {
    let gateway = start().await;
    let error = JobError { kind: "bad_input".to_owned(), message: "not a JPEG".to_owned() };
    let submitting = gateway.submission("?id=a", "hello").header("prefer", "wait=10").send();
    let (response, _) = tokio::join!(submitting, gateway.work(Outcome::Failed(error)));
    let response = response.unwrap();
    assert_eq!(response.status(), 422);
    let problem = problem(response).await;
    assert_eq!(problem["type"], "urn:millrace:problem:job-failed");
    assert_eq!(problem["job_id"], "a");
    assert_eq!(problem["error"], json!({"type": "bad_input", "message": "not a JPEG"}));
}

#[tokio::test]
async fn an_envelope_and_a_raw_body_make_the_same_job() {
    let gateway = start().await;
    let envelope = json!({
        "id": "enveloped", "class": "batch", "deadline": "1h",
        "input": {"media_type": "text/plain", "data": "aGVsbG8="},
    });
    assert_eq!(gateway.post("/v1/pools/text/jobs").json(&envelope).send().await.unwrap().status(), 202);
    let first = gateway.work(Outcome::Released).await;
    let query = "?id=raw&class=batch&deadline=1h";
    assert_eq!(gateway.submission(query, "hello").send().await.unwrap().status(), 202);
    let second = gateway.work(Outcome::Released).await;
    assert_eq!((first.class, first.input), (second.class, second.input));
    for job in [(first.created_at, first.deadline_at), (second.created_at, second.deadline_at)] {
        assert_eq!(job.1.unwrap().duration_since(job.0).as_secs(), 3600);
    }
}

#[tokio::test]
async fn tensors_reach_the_worker_unchanged() {
    let gateway = start().await;
    let body = r#"{"id":"t","inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0.1000]}]}"#;
    let request = gateway.post("/v1/pools/text/jobs").header("content-type", "application/json").body(body);
    assert_eq!(request.send().await.unwrap().status(), 202);
    let job = gateway.work(Outcome::Released).await;
    assert_eq!(job.input.media_type, TENSORS_MEDIA_TYPE);
    let bytes = gateway.blobs.bytes(&job.input.body).await.unwrap();
    assert_eq!(bytes, r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0.1000]}]}"#);
}

#[tokio::test]
async fn a_repeated_submission_is_one_job() {
    let gateway = start().await;
    for _ in 0..3 {
        assert_eq!(gateway.submit("a", "hello").await.status(), 202);
    }
    gateway.work(Outcome::Succeeded(text("done"))).await;
    let repeated = gateway.submit("a", "hello").await;
    assert_eq!(repeated.status(), 200);
    assert_eq!(repeated.json::<Value>().await.unwrap()["state"], "succeeded");
    let waited = gateway.submission("?id=a", "hello").header("prefer", "wait=5").send().await.unwrap();
    assert_eq!((waited.status().as_u16(), waited.text().await.unwrap()), (200, "done".to_owned()));
    let record = gateway.ledger.get(&"a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempts), (JobState::Succeeded, 1));
}

#[tokio::test]
async fn an_id_stays_with_its_first_input() {
    let gateway = start().await;
    gateway.submit("a", "hello").await;
    let response = gateway.submit("a", "goodbye").await;
    assert_eq!(problem_name(response).await, (409, "id-conflict".to_owned()));
    let job = gateway.work(Outcome::Released).await;
    assert_eq!(job.input.body, Body::Inline("hello".into()));
}

#[tokio::test]
async fn a_big_input_travels_as_a_reference_and_a_repetition_leaves_no_second_blob() {
    let mut gateway = start().await;
    const BIG: &str = concat!(
        "this text is longer than the sixty-four bytes that travel with a job, ",
        "so it lies in the blob store and the job refers to it",
    );
    assert_eq!(gateway.submit("a", BIG).await.status(), 202);
    assert_eq!(gateway.calls.recv().await, Some(Call::Published(vec![Publication::first("a".parse().unwrap())])));
    assert_eq!(gateway.submit("a", BIG).await.status(), 202);
    assert_eq!(gateway.blob_count(), 1);
    assert_eq!(
        gateway.submit("a", concat!("another text that is longer than the sixty-four bytes ", "inline")).await.status(),
        409
    );
    let job = gateway.work(Outcome::Released).await;
    assert!(matches!(job.input.body, Body::Reference(_)));
    assert_eq!(gateway.blobs.bytes(&job.input.body).await.unwrap(), BIG);
}

#[tokio::test]
async fn an_unconfirmed_job_stays_in_the_ledger_and_can_be_submitted_again() {
    let gateway = start().await;
    gateway.broker_unavailable.store(true, Ordering::SeqCst);
    let response = gateway.submit("a", "hello").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    let problem = problem(response).await;
    assert_eq!(problem["type"], "urn:millrace:problem:not-confirmed");
    assert_eq!(problem["job_id"], "a");
    assert!(problem["detail"].as_str().unwrap().contains("may still run"), "{problem}");
    assert!(!problem.to_string().contains("10.0.0.7"), "{problem}");
    assert_eq!(gateway.ledger.get(&"a".parse().unwrap()).await.unwrap().unwrap().state, JobState::Queued);

    gateway.broker_unavailable.store(false, Ordering::SeqCst);
    assert_eq!(gateway.submit("a", "hello").await.status(), 202);
    assert_eq!(gateway.waiting().await, 1);
}

#[tokio::test]
async fn a_job_that_is_too_large_for_the_broker_is_refused_and_leaves_nothing() {
    let gateway = start().await;
    let long = "a text that is longer than the largest input that travels with its job";
    for body in ["hello", long] {
        let response = gateway.submit("large", body).await;
        assert_eq!(response.status(), 413);
        assert!(!response.headers().contains_key("retry-after"));
        let problem = problem(response).await;
        assert_eq!(
            (&problem["type"], &problem["job_id"]),
            (&json!("urn:millrace:problem:unpublishable"), &json!("large"))
        );
        assert!(problem["detail"].as_str().unwrap().contains("70000 bytes are more than 65536"), "{problem}");
        assert_eq!(gateway.ledger.get(&"large".parse().unwrap()).await.unwrap(), None);
        assert_eq!(gateway.blob_count(), 0);
    }
    assert_eq!(gateway.submit("small", "hello").await.status(), 202);
    assert_eq!(gateway.waiting().await, 1);
}

#[tokio::test]
async fn the_ledger_records_the_confirmed_publications() {
    let mut gateway = start().await;
    gateway.submit("a", "hello").await;
    assert_eq!(gateway.calls.recv().await, Some(Call::Published(vec![Publication::first("a".parse().unwrap())])));
}

#[tokio::test]
async fn a_submission_that_the_ledger_refuses_leaves_no_blob() {
    let gateway = start().await;
    let long = "a text that is longer than the largest input that travels with its job";
    for kind in [ErrorKind::Full, ErrorKind::Conflict, ErrorKind::Refused] {
        *gateway.ledger_error.lock().unwrap() = Some(kind);
        let response = gateway.submit("a", long).await;
        assert!(!response.status().is_success());
        assert_eq!(gateway.blob_count(), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn each_ledger_error_has_its_problem_and_its_message_stays_private() {
    let gateway = start().await;
    for (kind, status, name) in [
        (ErrorKind::Unavailable, 503, "unavailable"),
        (ErrorKind::Denied, 503, "unavailable"),
        (ErrorKind::Full, 507, "storage-full"),
        (ErrorKind::Corrupt, 500, "internal"),
    ] {
        *gateway.ledger_error.lock().unwrap() = Some(kind);
        let response = gateway.submit("a", "hello").await;
        assert_eq!(response.status(), status);
        let problem = problem(response).await;
        assert_eq!(problem["type"], format!("urn:millrace:problem:{name}"));
        assert_eq!(problem["job_id"], "a");
        assert!(!problem.to_string().contains("secret"), "{problem}");
        let followed = gateway.get("/v1/jobs/a").send().await.unwrap();
        assert_eq!(problem_name(followed).await, (status, name.to_owned()));
    }
}
