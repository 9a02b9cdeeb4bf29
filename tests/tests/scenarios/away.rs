//! A broker that is unreachable when the services start. They log that, keep running, and serve once it is reachable.

use millrace_tests::{BrokerKind, PrivateServer, System, until};
use reqwest::Method;
use serde_json::Value;

async fn services_wait_for_their_broker(kind: BrokerKind) {
    let mut server = PrivateServer::start(kind).await.unwrap();
    server.kill().await.unwrap();
    let system = System::at(kind.urls_at(server.url()).unwrap(), "pools: {echo: {model: echo}}").unwrap();
    let gateway = system.gateway().await.unwrap();
    let worker = system.start("worker", &["--pool", "echo"]).unwrap();

    let live = gateway.request(Method::GET, "/livez").send().await.unwrap();
    assert_eq!(live.status(), 200, "{kind}");
    let refused = gateway.submit("echo?id=early", "text/plain", "early").await.unwrap();
    assert_eq!(refused.status(), 503, "{kind}");
    let problem: Value = refused.json().await.unwrap();
    let kinds = ["urn:millrace:problem:unavailable", "urn:millrace:problem:not-confirmed"];
    assert!(kinds.iter().any(|kind| problem["type"] == *kind), "{kind}: {problem}");
    worker.prints("trying again").await.unwrap();

    server.start_again().await.unwrap();
    let accepted = until("a job is accepted", async || {
        let response = gateway.submit("echo?id=early", "text/plain", "early").await?;
        Ok(response.status().is_success().then_some(()))
    });
    accepted.await.unwrap();
    assert_eq!(gateway.ended("early").await.unwrap()["state"], "succeeded", "{kind}");
    worker.terminate().unwrap();
    let (status, output) = worker.ended().await.unwrap();
    assert!(status.success(), "{kind}: {status}\n{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_rabbitmq() {
    services_wait_for_their_broker(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_kafka() {
    services_wait_for_their_broker(BrokerKind::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_redis() {
    services_wait_for_their_broker(BrokerKind::Redis).await;
}
