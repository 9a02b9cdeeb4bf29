//! Bodies with a `Content-Encoding`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use queue::{Body, JobError, JobState, Outcome};

use crate::harness::{MAX_BODY_BYTES, TestGateway, problem, problem_name, start};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn send(gateway: &TestGateway, path: &str, encoding: &str, body: Vec<u8>) -> reqwest::Response {
    let request = gateway.post(path).header("content-type", "text/plain").header("content-encoding", encoding);
    request.body(body).send().await.unwrap()
}

const JOBS: &str = "/v1/pools/text/jobs";

#[tokio::test]
async fn an_encoded_body_and_a_plain_one_make_the_same_job() {
    let gateway = start().await;
    let zstd = zstd::encode_all(&b"hello"[..], 3).unwrap();
    for (encoding, body) in [("gzip", gzip(b"hello")), ("zstd", zstd), ("identity", b"hello".to_vec())] {
        assert_eq!(send(&gateway, JOBS, encoding, body).await.status(), 202, "{encoding}");
        let job = gateway.work(Outcome::Released).await;
        assert_eq!(job.input.body, Body::Inline("hello".into()), "{encoding}");
        assert_eq!(job.input.media_type, "text/plain");
    }
}

#[tokio::test]
async fn a_job_is_requeued_with_an_encoded_input() {
    let gateway = start().await;
    gateway.submit("a", "hello").await;
    let error = JobError { kind: "bad_input".to_owned(), message: "not a JPEG".to_owned() };
    gateway.work(Outcome::Failed(error)).await;
    assert_eq!(send(&gateway, "/v1/jobs/a/requeue", "gzip", gzip(b"goodbye")).await.status(), 202);
    let input = gateway.ledger.input(&"a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(input.body, Body::Inline("goodbye".into()));
}

#[tokio::test]
async fn another_encoding_is_refused_with_the_accepted_ones() {
    let gateway = start().await;
    for path in [JOBS, "/v1/jobs/a/requeue"] {
        let response = send(&gateway, path, "br", b"hello".to_vec()).await;
        assert_eq!(response.headers()["accept-encoding"], "gzip, zstd, identity");
        assert_eq!(problem_name(response).await, (415, "unsupported-encoding".to_owned()));
    }
    assert_eq!(gateway.waiting().await, 0);
}

#[tokio::test]
async fn the_decoded_body_has_the_limit_of_a_plain_one_and_a_broken_one_is_refused() {
    let gateway = start().await;
    let fits = gzip(&vec![b'x'; MAX_BODY_BYTES]);
    assert_eq!(send(&gateway, &format!("{JOBS}?id=a"), "gzip", fits.clone()).await.status(), 202);
    gateway.work(Outcome::Released).await;
    for bytes in [MAX_BODY_BYTES + 1, 2 * 1024 * 1024] {
        let response = send(&gateway, JOBS, "gzip", gzip(&vec![b'x'; bytes])).await;
        assert_eq!(problem_name(response).await, (413, "body-too-large".to_owned()), "{bytes}");
    }
    let response = send(&gateway, JOBS, "gzip", fits[..fits.len() - 1].to_vec()).await;
    assert_eq!(response.status(), 400);
    let problem = problem(response).await;
    assert_eq!((&problem["type"], &problem["field"]), (&"urn:millrace:problem:body-unreadable".into(), &"body".into()));
    let record = gateway.ledger.get(&"a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Queued);
    assert_eq!(gateway.blob_count(), 1);
}
