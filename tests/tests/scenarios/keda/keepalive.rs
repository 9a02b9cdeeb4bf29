//! What a connection may cost.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Request;

use super::*;

/// Far more than it takes, so that only a fault is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// HTTP/2's first words, and settings that ask for nothing.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: u8 = 6;

/// C14.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_asked_whether_it_lives_and_closed_when_it_does_not_say_so() {
    let system = System::new(&YAML.replace("20ms", "20ms, keepalive_interval: 100ms")).unwrap();
    let scaler = system.scaler().await.unwrap();
    let mut socket = TcpStream::connect(&scaler.address).await.unwrap();
    socket.write_all(HELLO).await.unwrap();
    // Frames until the end: the length in three bytes, the kind, flags, the stream.
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
    let kinds = timeout(PATIENCE, reading).await.expect("it is still open");
    assert!(kinds.contains(&PING), "{kinds:?}");

    // One that answers stays: it is another's library, idle for as long as the pings of this one take.
    let mut keda = Keda::of(&scaler).await;
    let mut pushes = keda.pushes(&object("echo")).await.unwrap();
    assert!(!next(&mut pushes).await);
    let mut silent = TcpStream::connect(&scaler.address).await.unwrap();
    silent.write_all(HELLO).await.unwrap();
    let mut rest = Vec::new();
    // Whether it is closed or reset, it has an end.
    let _ = timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("it is still open");
    assert!(is_silent(&mut pushes));
    publish(&system.backend().await.unwrap(), "echo", 1).await;
    assert!(next(&mut pushes).await);
}

/// C14.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_and_the_connection_lives_on() {
    let (_system, _scaler, mut keda) = running().await;
    let mut pushes = keda.pushes(&object("echo")).await.unwrap();
    assert!(!next(&mut pushes).await);

    let mut request = Request::new(object("echo"));
    request.metadata_mut().insert("long", "x".repeat(20 * 1024).parse().unwrap());
    let status = timeout(PATIENCE, keda.client.is_active(request)).await.unwrap().unwrap_err();
    assert_ne!(status.code(), Code::Ok, "{status}");

    let huge = with("echo", &[("colour", &"x".repeat(5 * 1024 * 1024))]);
    let status = timeout(PATIENCE, keda.active(&huge)).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");

    assert!(!keda.active(&object("echo")).await.unwrap());
    let said = pushes.message().now_or_never();
    assert!(said.is_none(), "{said:?}");
}
