//! Files submitted through a real gateway. A task of the test takes the place of the worker.

use std::sync::Arc;
use std::time::Duration;

use backends::BackendUrls;
use gateway::{Gateway, GatewaySettings, Pool};
use model::InputCheck;
use queue::{Blobs, Body, Claim, ClaimRequest, Finish, JobErrorKind, Outcome, Output, Settlement, WorkerId};
use serde_json::Value;
use service::Health;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::connection::TlsArgs;

fn args(gateway: String, folder: &TempDir) -> SubmitArgs {
    SubmitArgs {
        gateway: GatewayArgs { gateway, tls: TlsArgs::default() },
        pool: "digits".parse().unwrap(),
        paths: vec![folder.path().to_owned()],
        media_type: None,
        class: None,
        deadline: None,
        timeout: Period::seconds(30),
        concurrency: 4,
        json: false,
        truth_from_name: true,
        rows: 50,
    }
}

/// Serves the pool `digits`. Its model predicts the content of the file, and fails if that is not a digit.
async fn serve(folder: &TempDir) -> String {
    let pool: PoolName = "digits".parse().unwrap();
    let url = format!("embedded:{}", folder.path().join("data").display()).parse().unwrap();
    let urls = BackendUrls::new(url, None).unwrap();
    let backend = backends::open(&urls).await.unwrap();
    let gateway = Gateway {
        pools: [(
            pool.clone(),
            Pool {
                input_check: InputCheck::accept_all(),
                max_attempts: 1,
                retention: Duration::from_secs(60),
                deadline: None,
            },
        )]
        .into(),
        ledger: Arc::clone(&backend.ledger),
        producer: backend.broker.producer().await.unwrap(),
        blobs: Blobs::directory(&folder.path().join("blobs"), 1024).unwrap(),
        settings: GatewaySettings::default(),
        health: Health::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gateway::run(listener, gateway, CancellationToken::new()));

    let consumer = backend.broker.consumer(&pool).await.unwrap();
    tokio::spawn(async move {
        let worker = WorkerId::new("worker-1");
        loop {
            let delivery = consumer.receive(1).await.unwrap().pop().unwrap();
            let request = ClaimRequest::new(delivery.job.clone(), false);
            let claim = backend.ledger.claim(&worker, vec![request], Duration::from_secs(30)).await.unwrap().pop();
            if let Some(Claim::Granted { lease, .. }) = claim {
                let outcome = model(&delivery.job.input.body);
                backend.ledger.finish(vec![Finish { lease, outcome }]).await.unwrap();
            }
            consumer.settle(vec![(delivery, Settlement::Ack)]).await.unwrap();
        }
    });
    format!("http://{address}")
}

fn model(input: &Body) -> Outcome {
    let Body::Inline(bytes) = input else { panic!("a small input must travel with its job") };
    let text = std::str::from_utf8(bytes).unwrap();
    if text.parse::<u8>().is_err() {
        let message = format!("{text:?} is not a digit");
        return Outcome::Failed(JobErrorKind::BadInput.error(message));
    }
    let body = format!(r#"{{"predictions":[{{"label":"{text}","probability":0.5}}]}}"#);
    Outcome::Succeeded(Output { media_type: "application/json".to_owned(), body: Body::Inline(body.into()) })
}

#[tokio::test]
async fn a_folder_is_submitted_and_predictions_are_printed_beside_the_true_labels() {
    let (files, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, text) in [("0000-7.txt", "7"), ("0001-8.txt", "8"), ("0002-9.txt", "1")] {
        std::fs::write(files.path().join(name), text).unwrap();
    }
    let mut out = Vec::new();
    let report = submit_to(&args(serve(&data).await, &files), &mut out).await.unwrap();
    assert!(report.all_succeeded());
    let text = String::from_utf8(out).unwrap();
    let order: Vec<_> =
        ["0000-7.txt", "0001-8.txt", "0002-9.txt"].iter().map(|name| text.find(name).unwrap()).collect();
    assert!(order.is_sorted(), "{text}");
    assert!(text.contains("7 (50.0 %)"), "{text}");
    assert!(text.contains("accuracy: 66.67 % (2 of 3)"), "{text}");
}

#[tokio::test]
async fn a_failed_or_refused_job_does_not_stop_the_others() {
    let (files, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, text) in [("a-1.txt", "1"), ("b-2.txt", "two"), ("c-3.txt", "")] {
        std::fs::write(files.path().join(name), text).unwrap();
    }
    let args = SubmitArgs { json: true, ..args(serve(&data).await, &files) };
    let mut out = Vec::new();
    let report = submit_to(&args, &mut out).await.unwrap();
    assert!(!report.all_succeeded());
    let text = String::from_utf8(out).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["file"].to_string());
    let states: Vec<_> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["succeeded", "failed", "refused"]);
    assert_eq!(lines[0]["result"]["predictions"][0]["label"], "1");
    assert!(lines[1]["error"].as_str().unwrap().contains("is not a digit"), "{text}");
    assert!(lines[2]["error"].as_str().unwrap().contains("empty"), "{text}");
}

#[tokio::test]
async fn a_failed_submission_is_repeated_under_the_same_id() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("a-1.txt"), "1").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = format!("http://{}", listener.local_addr().unwrap());
    let answers = ["200 OK", "503 Service Unavailable", "", "202 Accepted", "409 Conflict", "200 OK"];
    let serving = tokio::spawn(async move {
        let mut lines = Vec::new();
        for answer in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = connection.read(&mut request).await.unwrap();
            lines.push(String::from_utf8_lossy(&request[..read]).lines().next().unwrap().to_owned());
            // An empty answer stands for a connection that breaks.
            if !answer.is_empty() {
                let answer = format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi");
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        }
        lines
    });
    let report = submit_to(&args(gateway, &files), &mut Vec::new()).await.unwrap();
    assert!(report.all_succeeded());
    let lines = serving.await.unwrap();
    assert!(lines[1].starts_with("POST /v1/pools/digits/jobs?id="), "{lines:?}");
    assert_eq!(lines[1], lines[2]);
    assert_eq!(lines[2], lines[3]);
    assert!(lines[5].contains("/result?wait="), "{lines:?}");
}

#[tokio::test]
async fn an_unreachable_gateway_is_reported_once() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("a-1.txt"), "1").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let args = SubmitArgs { timeout: Period::millis(50), ..args(gateway.clone(), &files) };
    let error = submit_to(&args, &mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("the gateway at {gateway} cannot be reached")), "{error}");
}
