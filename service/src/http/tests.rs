use std::net::SocketAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// Far more time than anything here needs.
const LONG: Duration = Duration::from_secs(60);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn patient() -> HttpLimits {
    let hour = Duration::from_secs(3600);
    HttpLimits { header_timeout: hour, idle_timeout: hour, write_timeout: hour, connections: 100 }
}

async fn start(limits: HttpLimits) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let large = get(async || vec![0_u8; 64 * 1024 * 1024]);
    let router = Router::new().route("/", get(async || "ok")).route("/large", large);
    (address, stop.clone(), tokio::spawn(serve(listener, None, router, limits, stop)))
}

async fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    socket
}

async fn assert_answered(socket: &mut TcpStream) {
    let mut head = [0; 12];
    timeout(LONG, socket.read_exact(&mut head)).await.expect("no answer").unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

async fn assert_closed(mut socket: TcpStream) {
    let mut rest = Vec::new();
    // A reset closes the connection too.
    let _ = timeout(LONG, socket.read_to_end(&mut rest)).await.expect("the connection stays open");
}

#[tokio::test]
async fn connections_that_send_no_whole_header_are_closed() {
    let (address, ..) = start(HttpLimits { header_timeout: Duration::from_millis(50), ..patient() }).await;
    for begin in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nx: "] {
        assert_closed(connect(address, begin).await).await;
    }
}

#[tokio::test]
async fn a_connection_without_a_next_request_is_closed() {
    let (address, ..) = start(HttpLimits { idle_timeout: Duration::from_millis(50), ..patient() }).await;
    let mut socket = connect(address, REQUEST).await;
    assert_answered(&mut socket).await;
    assert_closed(socket).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off() {
    let limits = HttpLimits { write_timeout: Duration::from_millis(50), ..patient() };
    let (address, stop, serving) = start(limits).await;
    let _socket = connect(address, b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut other = connect(address, REQUEST).await;
    assert_answered(&mut other).await;
    stop.cancel();
    timeout(LONG, serving).await.expect("the reader that stalls holds the stop").unwrap();
}

#[tokio::test]
async fn a_new_request_is_answered_among_many_half_sent_ones() {
    let (address, ..) = start(HttpLimits { connections: 10, ..patient() }).await;
    let mut half_sent = Vec::new();
    for _ in 0..200 {
        half_sent.push(connect(address, b"GET / HTTP/1.1\r\nx: ").await);
    }
    assert_answered(&mut connect(address, REQUEST).await).await;
}

#[tokio::test]
async fn a_half_sent_header_does_not_hold_the_stop() {
    let (address, stop, serving) = start(patient()).await;
    let _half_sent = connect(address, b"GET / HTTP/1.1\r\nx: ").await;
    assert_answered(&mut connect(address, REQUEST).await).await;
    stop.cancel();
    timeout(LONG, serving).await.expect("a half-sent header holds the stop").unwrap();
}
