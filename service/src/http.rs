//! The HTTP server of every process: HTTP/1 and HTTP/2, with limits of time and of connections.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

mod activity;
mod connections;

use activity::{Activity, ObservedBody, ObservedSocket};
use connections::Connections;

use crate::Tls;

/// The pause after `accept` failed for lack of file descriptors. No event reports a free descriptor, and a loop without
/// a pause would use a whole core.
const PAUSE_WITHOUT_DESCRIPTORS: Duration = Duration::from_millis(100);

/// The number of requests that a client may have in flight on one HTTP/2 connection.
const MAX_CONCURRENT_STREAMS: u32 = 100;

/// HTTP/2 clients are pinged at this interval while their connection is open, and must answer within the same time.
const PING: Duration = Duration::from_secs(20);

/// After the stop, the rest of a header that has begun to arrive must arrive within this time.
const HEADER_AFTER_STOP: Duration = Duration::from_secs(1);

/// The limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// How long the header of a request may take to arrive. A new connection must send its first header in this time.
    pub header_timeout: Duration,
    /// How long a connection may stay open between two requests.
    pub idle_timeout: Duration,
    /// How long a client may take no byte of an answer.
    pub write_timeout: Duration,
    /// The most open connections.
    pub connections: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(30),
            connections: connections::allowed_by_descriptors(),
        }
    }
}

/// Serves `router` on `listener` until `stop`, then until the requests in flight have ended.
///
/// When all connections are in use, the one that has waited longest for a request is closed to make room for a new one.
/// If every connection has a request in flight, new connections wait in the kernel's queue. Dropping the future closes
/// the connections. With `tls`, a connection in plain text is closed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    let tls = tls.map(Arc::new);
    let abort = CancellationToken::new();
    let _abort_when_dropped = abort.clone().drop_guard();
    let connections = Arc::new(Connections::new(limits.connections));
    let tracker = TaskTracker::new();
    loop {
        let socket = tokio::select! {
            () = stop.cancelled() => break,
            socket = accept(&listener, &connections) => socket,
        };
        let activity = Arc::new(Activity::new());
        let place = connections.add(Arc::clone(&activity));
        let serving = serve_socket(socket, tls.clone(), router.clone(), activity, limits, stop.clone());
        let abort = abort.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = serving => {}
                () = place.evicted() => tracing::debug!("an idle connection was closed to make room for a new one"),
                () = abort.cancelled() => {}
            }
        });
    }
    drop(listener);
    tracker.close();
    tracker.wait().await;
}

/// Waits for room and a connection.
async fn accept(listener: &TcpListener, connections: &Connections) -> TcpStream {
    loop {
        let error = match listener.accept().await {
            Ok((socket, _)) => {
                connections.room().await;
                // Answers are small and each is written in one piece, so Nagle's algorithm would only delay them.
                let _ = socket.set_nodelay(true);
                return socket;
            }
            Err(error) => error,
        };
        use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            tracing::warn!(%error, "no connection can be accepted");
            connections.evict_longest_idle();
            tokio::time::sleep(PAUSE_WITHOUT_DESCRIPTORS).await;
        }
    }
}

async fn serve_socket(
    socket: TcpStream,
    tls: Option<Arc<Tls>>,
    router: Router,
    activity: Arc<Activity>,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    let Some(tls) = tls else { return serve_connection(socket, router, activity, limits, stop).await };
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(HEADER_AFTER_STOP).await;
    };
    // The handshake and the first header have one time limit each.
    tokio::select! {
        shaken = timeout(limits.header_timeout, tls.handshake(socket)) => match shaken {
            Ok(Ok(socket)) => serve_connection(socket, router, activity, limits, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
            Err(_) => tracing::debug!(within = ?limits.header_timeout, "a handshake took too long"),
        },
        () = stopped => tracing::debug!("a handshake was cut off by the stop"),
    }
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: S,
    router: Router,
    activity: Arc<Activity>,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    let io = TokioIo::new(ObservedSocket::new(socket, Arc::clone(&activity)));
    let of_requests = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let in_flight = of_requests.request(request.version());
        let answering = router.clone().oneshot(request.map(Body::new));
        async move {
            let response = answering.await?;
            Ok::<_, Infallible>(response.map(|body| ObservedBody::new(body, in_flight)))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut header_timeout = limits.header_timeout;
    let mut stopping = false;
    loop {
        let shortest = header_timeout.min(limits.idle_timeout).min(limits.write_timeout);
        let until_check = (shortest / 10).max(Duration::from_millis(5));
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                header_timeout = header_timeout.min(HEADER_AFTER_STOP);
                activity.start_of_stop();
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(until_check) => {
                let limits = HttpLimits { header_timeout, ..limits };
                if let Some(reason) = activity.overdue(&limits) {
                    tracing::debug!(reason, "a connection was closed");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod tls_tests;
