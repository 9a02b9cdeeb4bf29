//! Idle connections, and limits on requests.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Request;

use super::*;

/// Far longer than needed, so only a fault is slow.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The connection preface of HTTP/2, with an empty settings frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The frame type of a ping.
const PING: u8 = 6;

/// C14.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_pinged_and_closed_if_it_does_not_answer() {
    let system = System::new(&YAML.replace("20ms", "20ms, keepalive_interval: 100ms")).unwrap();
    let scaler = system.scaler().await.unwrap();
    let mut socket = TcpStream::connect(&scaler.address).await.unwrap();
    socket.write_all(PREFACE).await.unwrap();
    // A frame starts with its length in three bytes, its type, flags and stream.
    let reading = async {
        let mut kinds = Vec::new();
        let mut head = [0; 9];
        while socket.read_exact(&mut head).await.is_ok() {
            kinds.push(head[3]);
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut body = vec![0; length as usize];
            if socket.read_exact(&mut body).await.is_err() {
                break;
            }
        }
        kinds
    };
    let kinds = timeout(TIMEOUT, reading).await.expect("the connection is still open");
    assert!(kinds.contains(&PING), "{kinds:?}");

    // A connection that answers pings stays open, although it is idle as long as the other one.
    let mut keda = Keda::of(&scaler).await;
    let mut pushes = keda.pushes(&object("echo")).await.unwrap();
    assert!(!next(&mut pushes).await);
    let mut silent = TcpStream::connect(&scaler.address).await.unwrap();
    silent.write_all(PREFACE).await.unwrap();
    let mut rest = Vec::new();
    // The connection may be closed or reset.
    let _ = timeout(TIMEOUT, silent.read_to_end(&mut rest)).await.expect("the connection is still open");
    assert!(is_silent(&mut pushes));
    publish(&system.backend().await.unwrap(), "echo", 1).await;
    assert!(next(&mut pushes).await);
}

/// C14.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_is_refused_and_the_connection_stays_open() {
    let (_system, _scaler, mut keda) = running().await;
    let mut pushes = keda.pushes(&object("echo")).await.unwrap();
    assert!(!next(&mut pushes).await);

    let mut request = Request::new(object("echo"));
    request.metadata_mut().insert("long", "x".repeat(20 * 1024).parse().unwrap());
    let status = timeout(TIMEOUT, keda.client.is_active(request)).await.unwrap().unwrap_err();
    assert_ne!(status.code(), Code::Ok, "{status}");

    let huge = with("echo", &[("colour", &"x".repeat(5 * 1024 * 1024))]);
    let status = timeout(TIMEOUT, keda.active(&huge)).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");

    assert!(!keda.active(&object("echo")).await.unwrap());
    let pushed = pushes.message().now_or_never();
    assert!(pushed.is_none(), "{pushed:?}");
}
