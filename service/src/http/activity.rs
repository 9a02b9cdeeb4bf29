//! What a connection is doing: waiting for a request, answering, or stalled.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Version;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::HttpLimits;

/// The activity of one connection.
pub(crate) struct Activity(Mutex<State>);

struct State {
    /// The number of requests without a complete answer.
    in_flight: usize,
    /// Whether a request has arrived on this connection.
    served: bool,
    /// Whether the protocol is HTTP/2, in which a client also sends outside of requests.
    http2: bool,
    /// Since when the connection has waited for a request, or made its last progress in writing.
    waiting_since: Instant,
    /// The arrival of the first byte of a header that is not complete.
    header_since: Option<Instant>,
    /// Since when the client has taken no byte of an answer.
    stalled_since: Option<Instant>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            in_flight: 0,
            served: false,
            http2: false,
            waiting_since: Instant::now(),
            header_since: None,
            stalled_since: None,
        }))
    }

    /// Records the arrival of a request. The request is in flight until the result is dropped.
    pub(crate) fn request(self: &Arc<Self>, version: Version) -> InFlight {
        let mut state = self.0.lock();
        state.in_flight += 1;
        state.served = true;
        state.http2 = version == Version::HTTP_2;
        state.header_since = None;
        InFlight(Arc::clone(self))
    }

    /// Records that the server stops: the time of a header that is arriving starts again.
    pub(crate) fn start_of_stop(&self) {
        let mut state = self.0.lock();
        state.header_since = state.header_since.map(|_| Instant::now());
    }

    /// Since when the connection has waited, if no request is in flight.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.0.lock();
        (state.in_flight == 0).then_some(state.waiting_since)
    }

    /// The reason to close the connection.
    pub(crate) fn overdue(&self, limits: &HttpLimits) -> Option<&'static str> {
        let state = self.0.lock();
        let longer = |since: Instant, limit: Duration| since.elapsed() > limit;
        if state.stalled_since.is_some_and(|since| longer(since, limits.write_timeout)) {
            return Some("the client took no byte of an answer in time");
        }
        if state.in_flight > 0 || state.stalled_since.is_some() {
            return None;
        }
        let header_since =
            state.header_since.filter(|_| !state.http2).or((!state.served).then_some(state.waiting_since));
        if header_since.is_some_and(|since| longer(since, limits.header_timeout)) {
            return Some("the header of a request did not arrive in time");
        }
        longer(state.waiting_since, limits.idle_timeout).then_some("no request arrived in time")
    }

    fn has_read(&self) {
        let mut state = self.0.lock();
        if state.in_flight == 0 && state.header_since.is_none() {
            state.header_since = Some(Instant::now());
        }
    }

    fn has_written(&self) {
        let mut state = self.0.lock();
        state.stalled_since = None;
        state.waiting_since = Instant::now();
    }

    fn stalls(&self) {
        self.0.lock().stalled_since.get_or_insert_with(Instant::now);
    }
}

/// A request without a complete answer.
pub(crate) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.in_flight -= 1;
        state.waiting_since = Instant::now();
    }
}

/// The body of an answer: the request is in flight until the body has been passed on.
pub(crate) struct ObservedBody {
    body: Body,
    _in_flight: InFlight,
}

impl ObservedBody {
    pub(crate) fn new(body: Body, in_flight: InFlight) -> Self {
        Self { body, _in_flight: in_flight }
    }
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that records its reads and writes.
pub(crate) struct ObservedSocket<S> {
    socket: S,
    activity: Arc<Activity>,
}

impl<S> ObservedSocket<S> {
    pub(crate) fn new(socket: S, activity: Arc<Activity>) -> Self {
        Self { socket, activity }
    }

    fn observe(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(_) => self.activity.has_written(),
            Poll::Pending => self.activity.stalls(),
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.has_read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ObservedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.observe(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.observe(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
