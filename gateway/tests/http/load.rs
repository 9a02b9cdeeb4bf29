//! A gateway under load: many connections, and many large bodies.

use std::time::Duration;

use futures::future::join_all;
use gateway::GatewaySettings;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{launch, start};

/// Far more time than anything here needs.
const LONG: Duration = Duration::from_secs(60);

const HALF_OPEN: usize = 2000;

/// The number of large bodies. All of them have room in memory.
const BODIES: usize = 4;

#[tokio::test]
async fn new_requests_are_answered_among_two_thousand_half_open_connections() {
    let gateway = start().await;
    // The gateway raises the limit of file descriptors, of which this test needs as many as the gateway.
    assert_eq!(gateway.get("/livez").send().await.unwrap().status(), 200);
    let mut half_open = Vec::with_capacity(HALF_OPEN);
    for number in 0..HALF_OPEN {
        let mut connection = TcpStream::connect(gateway.address).await.unwrap();
        if number % 2 == 0 {
            connection.write_all(b"POST /v1/pools/text/jobs HTTP/1.1\r\nx: ").await.unwrap();
        }
        half_open.push(connection);
    }
    // Each client opens a connection of its own.
    for path in ["/readyz", "/livez", "/metrics"] {
        let request =
            client::plain_http().unwrap().build().unwrap().get(format!("http://{}{path}", gateway.address)).send();
        assert_eq!(timeout(LONG, request).await.expect("no answer").unwrap().status(), 200, "{path}");
    }
    assert_eq!(timeout(LONG, gateway.submit("a", "hello")).await.expect("no answer").status(), 202);
    drop(half_open);
}

#[tokio::test]
async fn probes_are_answered_while_large_bodies_are_checked() {
    let gateway = launch(GatewaySettings::default()).await;
    let body = "x".repeat(1024 * 1024);
    let submit = |_| {
        let request = gateway.post("/v1/pools/gated/jobs").header("content-type", "text/plain").body(body.clone());
        tokio::spawn(request.send())
    };
    let submitting: Vec<_> = (0..BODIES).map(submit).collect();
    while gateway.gate.checks() < BODIES {
        tokio::task::yield_now().await;
    }
    for path in ["/readyz", "/livez", "/metrics"] {
        let answer = timeout(LONG, gateway.get(path).send()).await.expect("no answer").unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert!(submitting.iter().all(|submitting| !submitting.is_finished()));
    gateway.gate.open();
    for answer in join_all(submitting).await {
        assert_eq!(answer.unwrap().unwrap().status(), 202);
    }
}
