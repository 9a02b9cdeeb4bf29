//! Combines concurrent requests into shared calls.
//!
//! A request that finds room for a further call starts one at once. Requests that arrive while the calls are under way
//! gather, and the next call takes all of them. So there is no timer: an idle gateway does not delay a request, and a
//! busy one makes few calls.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The most calls under way. With two, the ledger records one batch while the broker confirms the other.
const CALLS: usize = 2;
/// The most requests of one call, and about the most bytes of them.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 8 << 20;

/// Handles a batch of requests, and returns one answer for each, in order.
type Handler<Q, A> = Box<dyn Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>> + Send + Sync>;

/// Combines concurrent requests.
pub(super) struct Combiner<Q, A>(Arc<Shared<Q, A>>);

struct Shared<Q, A> {
    bytes_of: fn(&Q) -> usize,
    handler: Handler<Q, A>,
    state: Mutex<State<Q, A>>,
}

struct State<Q, A> {
    gathered: VecDeque<(Q, oneshot::Sender<A>)>,
    /// The number of calls under way.
    calls: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Combiner<Q, A> {
    /// A combiner of calls of `handler`. `bytes_of` is the size of a request.
    pub(super) fn new(bytes_of: fn(&Q) -> usize, handler: Handler<Q, A>) -> Self {
        let state = Mutex::new(State { gathered: VecDeque::new(), calls: 0 });
        Self(Arc::new(Shared { bytes_of, handler, state }))
    }

    /// Adds a request to the next call, and waits for its answer. The request is handled even if this future is dropped.
    /// `None`: the handler panicked.
    pub(super) async fn answer(&self, request: Q) -> Option<A> {
        let (reply, answer) = oneshot::channel();
        let is_idle = {
            let mut state = self.0.state.lock();
            state.gathered.push_back((request, reply));
            let is_idle = state.calls < CALLS;
            state.calls += usize::from(is_idle);
            is_idle
        };
        if is_idle {
            tokio::spawn(Arc::clone(&self.0).run());
        }
        answer.await.ok()
    }
}

impl<Q, A> Shared<Q, A> {
    /// Makes one call after the other until no request is left.
    async fn run(self: Arc<Self>) {
        // The requests that have arrived already, but whose tasks have not run yet, join the first call.
        tokio::task::yield_now().await;
        while let Some((requests, replies)) = self.next_batch() {
            let handling = AssertUnwindSafe(async { (self.handler)(requests).await }).catch_unwind();
            // The panic hook has logged a panic. Its requests lose their replies, which they notice.
            for (reply, answer) in replies.into_iter().zip(handling.await.unwrap_or_default()) {
                // A requester that is gone needs no answer.
                let _ = reply.send(answer);
            }
        }
    }

    /// The requests that have gathered, up to a full batch. If there are none, this call has ended.
    fn next_batch(&self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        let mut state = self.state.lock();
        let mut bytes = 0;
        let fits = |(request, _): &&(Q, _)| {
            bytes += (self.bytes_of)(request);
            bytes <= BATCH_BYTES
        };
        let count = state.gathered.iter().take(BATCH).take_while(fits).count().max(1).min(state.gathered.len());
        if count == 0 {
            state.calls -= 1;
            return None;
        }
        Some(state.gathered.drain(..count).unzip())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    /// A request on which the handler panics.
    const PANIC: usize = 1313;

    /// A combiner that reports the size of each batch, and whose calls end with the permits of a semaphore.
    fn combiner() -> (Arc<Combiner<usize, usize>>, mpsc::UnboundedReceiver<usize>, Arc<Semaphore>) {
        let (report, sizes) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(0));
        let of_handler = Arc::clone(&permits);
        let handler = move |requests: Vec<usize>| {
            let (report, permits) = (report.clone(), Arc::clone(&of_handler));
            async move {
                report.send(requests.len()).unwrap();
                permits.acquire().await.unwrap().forget();
                assert!(!requests.contains(&PANIC), "the test asked for a panic");
                requests.iter().map(|request| request * 10).collect()
            }
            .boxed()
        };
        (Arc::new(Combiner::new(|bytes| *bytes, Box::new(handler))), sizes, permits)
    }

    fn ask(combiner: &Arc<Combiner<usize, usize>>, request: usize) -> tokio::task::JoinHandle<Option<usize>> {
        let combiner = Arc::clone(combiner);
        tokio::spawn(async move { combiner.answer(request).await })
    }

    #[tokio::test]
    async fn requests_that_gather_during_calls_share_the_next_one_and_each_gets_its_own_answer() {
        let (combiner, mut sizes, permits) = combiner();
        let mut asked = Vec::new();
        for call in 0..CALLS {
            asked.push(ask(&combiner, call));
            assert_eq!(sizes.recv().await, Some(1));
        }
        asked.extend((CALLS..40).map(|request| ask(&combiner, request)));
        tokio::task::yield_now().await;
        permits.add_permits(1);
        assert_eq!(sizes.recv().await, Some(40 - CALLS));
        permits.add_permits(CALLS);
        for (request, answer) in join_all(asked).await.into_iter().enumerate() {
            assert_eq!(answer.unwrap(), Some(request * 10));
        }
        assert_eq!(combiner.0.state.lock().calls, 0);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_its_bytes_and_a_larger_request_goes_alone() {
        let (combiner, mut sizes, permits) = combiner();
        let half = BATCH_BYTES / 2;
        let asked: Vec<_> = [half, half, 1, BATCH_BYTES + 1, 1].map(|bytes| ask(&combiner, bytes)).into();
        permits.add_permits(5);
        let mut seen = Vec::new();
        while seen.iter().sum::<usize>() < asked.len() {
            seen.push(sizes.recv().await.unwrap());
        }
        assert_eq!(seen, [2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn a_panic_fails_the_requests_of_its_call_only() {
        let (combiner, mut sizes, permits) = combiner();
        permits.add_permits(2 * CALLS + 2);
        for _ in 0..=CALLS {
            assert_eq!(combiner.answer(PANIC).await, None);
            assert_eq!(sizes.recv().await, Some(1));
        }
        assert_eq!(combiner.answer(1).await, Some(10));
    }

    #[tokio::test]
    async fn a_request_whose_requester_is_gone_is_handled() {
        let handled = Arc::new(AtomicUsize::new(0));
        let of_handler = Arc::clone(&handled);
        let (ended, has_ended) = oneshot::channel::<()>();
        let ended = Mutex::new(Some(ended));
        let handler = move |requests: Vec<usize>| {
            of_handler.fetch_add(requests.len(), Ordering::SeqCst);
            drop(ended.lock().take());
            async move { requests }.boxed()
        };
        let combiner = Combiner::new(|_| 0, Box::new(handler));
        assert!(combiner.answer(1).now_or_never().is_none());
        assert!(has_ended.await.is_err());
        assert_eq!(handled.load(Ordering::SeqCst), 1);
    }
}
