//! Bad requests: each has its problem and stores nothing.

use gateway::GatewaySettings;
use queue::JobCounts;
use reqwest::Method;
use service::Period;

use crate::harness::{MAX_BODY_BYTES, TestGateway, pool_name, problem, problem_name, start, start_with};

async fn assert_nothing_was_stored(gateway: &TestGateway) {
    assert_eq!(gateway.waiting().await, 0);
    assert_eq!(gateway.ledger.counts(&[pool_name()]).await.unwrap(), [JobCounts::default()]);
    assert_eq!(gateway.blob_count(), 0);
}

#[tokio::test]
async fn each_bad_submission_has_its_problem_and_stores_nothing() {
    let gateway = start().await;
    const JOBS: &str = "/v1/pools/text/jobs";
    let tensors = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}]}"#;
    const DIGITS: &str = "/v1/pools/digits/jobs";
    let typed = r#"{"input":{"media_type":"text/plain","data":"aGk="}}"#;
    let (text, json) = ("text/plain", "application/json");
    for (path, media_type, body, status, name, field) in [
        ("/v1/pools/nowhere/jobs", text, "a", 404, "unknown-pool", "pool"),
        ("/v1/pools/No_Pool/jobs", text, "a", 404, "unknown-pool", "pool"),
        ("/v1/pools/%FF/jobs", text, "a", 400, "bad-path", "path"),
        (JOBS, "image/png", "a", 415, "unsupported-media-type", "content-type"),
        (DIGITS, text, "a", 415, "unsupported-media-type", "content-type"),
        (DIGITS, json, typed, 415, "unsupported-media-type", "input.media_type"),
        (DIGITS, json, "{\"inputs\":[]}", 422, "invalid-input", "inputs"),
        (JOBS, json, tensors, 422, "invalid-input", "inputs[0].shape"),
        (JOBS, text, "", 400, "empty-body", "body"),
        (JOBS, json, "{", 400, "malformed-json", "body"),
        (JOBS, json, "[1]", 422, "invalid-input", "body"),
        (JOBS, json, "{\"imput\":1}", 422, "invalid-input", "imput"),
        (JOBS, json, "{\"input\":{\"media_type\":\"text/plain\",\"data\":\"%\"}}", 422, "invalid-input", "input.data"),
        (JOBS, json, "{\"id\":\"a b\",\"inputs\":[]}", 400, "bad-id", "id"),
        ("/v1/pools/text/jobs?id=a/b", text, "a", 400, "bad-id", "id"),
        ("/v1/pools/text/jobs?class=gold", text, "a", 400, "bad-option", "class"),
        ("/v1/pools/text/jobs?deadline=soon", text, "a", 400, "bad-option", "deadline"),
        ("/v1/pools/text/jobs?deadline=9999999999999d", text, "a", 400, "bad-option", "deadline"),
        ("/v1/pools/text/jobs?priority=1", text, "a", 400, "bad-query", "priority"),
    ] {
        let response = gateway.post(path).header("content-type", media_type).body(body).send().await.unwrap();
        assert_eq!(response.status(), status, "{path} {body}");
        let problem = problem(response).await;
        assert_eq!(problem["type"], format!("urn:millrace:problem:{name}"), "{path} {body}");
        assert_eq!(problem["field"], field, "{path} {body}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(field), "{detail}");
    }
    assert_nothing_was_stored(&gateway).await;
}

#[tokio::test]
async fn each_bad_request_about_a_job_has_its_problem() {
    let gateway = start().await;
    for (method, path, status, name) in [
        (Method::GET, "/v1/jobs/a%20b", 400, "bad-id"),
        (Method::GET, "/v1/jobs/%FF", 400, "bad-path"),
        (Method::GET, "/v1/jobs/a?wait=soon", 400, "bad-query"),
        (Method::GET, "/v1/jobs/a?wait=-1s", 400, "bad-query"),
        (Method::GET, "/v1/jobs/a/result?until=now", 400, "bad-query"),
        (Method::GET, "/v1/jobs/a/input?wait=1s", 400, "bad-query"),
        (Method::POST, "/v1/jobs/a/cancel?reason=x", 400, "bad-query"),
        (Method::DELETE, "/v1/jobs/a?force=1", 400, "bad-query"),
        (Method::GET, "/v1/nothing", 404, "unknown-route"),
        (Method::GET, "/", 404, "unknown-route"),
        (Method::GET, "/v1/pools/text/jobs", 405, "method-not-allowed"),
        (Method::PUT, "/v1/jobs/a", 405, "method-not-allowed"),
        (Method::POST, "/readyz", 405, "method-not-allowed"),
    ] {
        let request = gateway.client.request(method.clone(), format!("http://{}{path}", gateway.address));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers().contains_key("allow"), status == 405, "{method} {path}");
        assert_eq!(problem_name(response).await, (status, name.to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_and_without_a_length() {
    let gateway = start().await;
    let fits = gateway.submission("?id=fits", "").body("x".repeat(MAX_BODY_BYTES)).send().await.unwrap();
    assert_eq!(fits.status(), 202);
    gateway.work(queue::Outcome::Released).await;

    // Larger than the socket buffers: the client must be able to read the answer while it still sends.
    for bytes in [MAX_BODY_BYTES + 1, 16 * 1024 * 1024] {
        let response = gateway.submission("", "").body("x".repeat(bytes)).send().await.unwrap();
        assert_eq!(response.status(), 413);
        let problem = problem(response).await;
        assert_eq!(problem["type"], "urn:millrace:problem:body-too-large");
        assert_eq!(problem["field"], "body");
    }
    let head = "POST /v1/pools/text/jobs HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: text/plain\r\n";
    let chunk = format!("800\r\n{}\r\n", "x".repeat(0x800));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(3));
    let answer = gateway.raw(chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("urn:millrace:problem:body-too-large"), "{answer}");
    assert!(answer.contains(r#""field":"body""#), "{answer}");

    // A client that waits for `100 Continue` is answered before it has sent the body.
    let asking = format!("{head}content-length: 1000000\r\nexpect: 100-continue\r\n\r\n");
    let answer = gateway.raw(asking.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let gateway = start().await;
    let large = || "x".repeat(16 * 1024 * 1024);
    for (method, path, status) in [
        (Method::POST, "/v1/pools/nowhere/jobs", 404),
        (Method::POST, "/v1/pools/%FF/jobs", 400),
        (Method::POST, "/v1/nothing", 404),
        (Method::PUT, "/v1/jobs/a", 405),
        (Method::POST, "/v1/jobs/a/cancel", 404),
    ] {
        let request = gateway.client.request(method.clone(), format!("http://{}{path}", gateway.address));
        let response = request.body(large()).send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_refused() {
    let settings = GatewaySettings { body_timeout: Period::millis(50), ..GatewaySettings::default() };
    let gateway = start_with(settings).await;
    let half =
        "POST /v1/pools/text/jobs HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\ncontent-type: text/plain\r\n\r\nhalf";
    let answer = gateway.raw(half.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("urn:millrace:problem:body-timeout"), "{answer}");
    assert!(answer.contains(r#""field":"body""#), "{answer}");
    assert_nothing_was_stored(&gateway).await;
}

#[tokio::test]
async fn a_panicking_handler_returns_a_problem_and_the_gateway_keeps_serving() {
    let gateway = start().await;
    let request = gateway.post("/v1/pools/text/jobs").header("content-type", "text/panic").body("a");
    let response = request.send().await.unwrap();
    assert_eq!(problem_name(response).await, (500, "internal".to_owned()));
    assert_eq!(gateway.submit("a", "hello").await.status(), 202);
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let gateway = start().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.get(path).send().await.unwrap().status(), 200, "{path}");
    }
    gateway.submit("a", "hello").await;
    gateway.get("/v1/jobs?pool=text&source=/s&id=x").send().await.unwrap();
    gateway.get("/v1/nothing").send().await.unwrap();
    let metrics = gateway.get("/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "millrace_gateway_requests_total{route=\"/v1/pools/{pool}/jobs\",status=\"202\"}",
        "millrace_gateway_requests_total{route=\"/v1/jobs\",status=\"404\"}",
        "millrace_gateway_requests_total{route=\"none\",status=\"404\"}",
        "millrace_gateway_submissions_total{pool=\"text\",class=\"standard\",outcome=\"new\"}",
        "millrace_gateway_request_seconds_bucket{route=\"/v1/pools/{pool}/jobs\",",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }
}
