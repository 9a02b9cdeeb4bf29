//! librdkafka's calls block. So the calls that an async caller waits for run on a separate thread.

use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use queue::{Error, ErrorKind, Result};

/// The longest time for which the caller waits for the result.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The number of calls that may wait for the thread.
const MAX_WAITING: usize = 256;

type Call = Box<dyn FnOnce() + Send>;

/// The thread, which starts with the first call.
#[derive(Default)]
pub(super) struct BlockingCalls {
    thread: Mutex<Option<Sender<Call>>>,
}

impl BlockingCalls {
    /// Runs `call`, which may block, and returns its result.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        action: &str,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, result) = oneshot::channel();
        let call = Box::new(move || {
            // Many calls wait while the servers are unreachable, and most of their callers have dropped their futures.
            if !reply.is_closed() {
                drop(reply.send(call()));
            }
        });
        let unavailable =
            |why: std::fmt::Arguments<'_>| Error::new(ErrorKind::Unavailable, format_args!("cannot {action}: {why}"));
        let gone = || unavailable(format_args!("its thread has ended"));
        self.thread(action)?.try_send(call).map_err(|error| match error {
            TrySendError::Full(_) => unavailable(format_args!("{MAX_WAITING} calls wait for the servers already")),
            TrySendError::Disconnected(_) => gone(),
        })?;
        match tokio::time::timeout(TIMEOUT, result).await {
            Ok(result) => result.map_err(|_| gone())?,
            Err(_) => Err(unavailable(format_args!("no answer within {TIMEOUT:?}"))),
        }
    }

    fn thread(&self, action: &str) -> Result<Sender<Call>> {
        let mut thread = self.thread.lock();
        if let Some(thread) = &*thread {
            return Ok(thread.clone());
        }
        let (sender, calls) = crossbeam_channel::bounded::<Call>(MAX_WAITING);
        let run = move || calls.into_iter().for_each(|call| call());
        std::thread::Builder::new()
            .name("kafka-calls".to_owned())
            .spawn(run)
            .map_err(|error| Error::caused(ErrorKind::Unavailable, format_args!("cannot {action}"), error))?;
        *thread = Some(sender.clone());
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_call_without_a_caller_is_skipped_and_no_more_calls_wait_than_may() {
        let calls = Arc::new(BlockingCalls::default());
        let (is_busy, busy) = crossbeam_channel::bounded(0);
        let (go_on, gone_on) = crossbeam_channel::bounded::<()>(0);
        let hold_up = move || {
            is_busy.send(()).unwrap();
            gone_on.recv().unwrap();
            Ok(())
        };
        let counter = Arc::new(AtomicUsize::new(0));
        let count = || {
            let (calls, counter) = (Arc::clone(&calls), Arc::clone(&counter));
            async move { calls.run("count", move || Ok(counter.fetch_add(1, Ordering::Relaxed))).await }
        };

        let first = tokio::spawn({
            let calls = Arc::clone(&calls);
            async move { calls.run("hold up", hold_up).await }
        });
        tokio::task::yield_now().await;
        busy.recv().unwrap();
        for _ in 1..MAX_WAITING {
            assert!(tokio::time::timeout(Duration::ZERO, count()).await.is_err(), "it cannot have run");
        }
        let last = tokio::spawn(count());
        tokio::task::yield_now().await;
        let error = count().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("256 calls wait"), "{error}");
        go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(last.await.unwrap().unwrap(), 0);
        assert_eq!(counter.load(Ordering::Relaxed), 1);
    }
}
