//! How many jobs a worker may hold that have not run yet.
//!
//! Two batches per instance: one runs, the next is prepared meanwhile. Everything else waits in the broker, where the
//! scaler sees it and another worker can take it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Room for a bounded number of jobs.
#[derive(Debug)]
pub(crate) struct Window {
    size: usize,
    /// Less room than this is not worth a round trip while the rest of the window keeps the device busy.
    worthwhile: usize,
    /// Results that wait for the ledger take memory: with more of them nothing new is received.
    most_unwritten: usize,
    counts: Mutex<Counts>,
    freed: Notify,
    all_written: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// Received (or about to be), and not run yet.
    held: usize,
    /// Run, or given up, and not told to the ledger yet.
    unwritten: usize,
}

impl Window {
    pub(crate) fn new(max_batch_items: usize, instances: usize) -> Self {
        let size = 2 * max_batch_items * instances;
        Self {
            size,
            worthwhile: (max_batch_items / 2).max(1),
            most_unwritten: 2 * size,
            counts: Mutex::default(),
            freed: Notify::new(),
            all_written: Notify::new(),
        }
    }

    /// Waits for a worthwhile amount of room and takes all there is; returns how many jobs it is for.
    pub(crate) async fn reserve(&self) -> usize {
        loop {
            let freed = self.freed.notified();
            {
                let mut counts = self.lock();
                let room = self.size - counts.held;
                if room >= self.worthwhile && counts.unwritten <= self.most_unwritten {
                    counts.held = self.size;
                    return room;
                }
            }
            freed.await;
        }
    }

    /// Gives room back that a receive did not need, or jobs that the ledger need not be told of.
    pub(crate) fn release(&self, jobs: usize) {
        if jobs > 0 {
            self.lock().held -= jobs;
            self.freed.notify_one();
        }
    }

    /// Jobs have run, or will not: the next may come while the ledger is told.
    pub(crate) fn ran(&self, jobs: usize) {
        let mut counts = self.lock();
        counts.held -= jobs;
        counts.unwritten += jobs;
        drop(counts);
        self.freed.notify_one();
    }

    /// The ledger has been told of jobs.
    pub(crate) fn written(&self, jobs: usize) {
        let mut counts = self.lock();
        counts.unwritten -= jobs;
        if counts.unwritten == 0 {
            self.all_written.notify_waiters();
        }
        drop(counts);
        self.freed.notify_one();
    }

    /// Waits until the ledger has been told of everything that has run.
    pub(crate) async fn all_written(&self) {
        loop {
            let all_written = self.all_written.notified();
            if self.lock().unwritten == 0 {
                return;
            }
            all_written.await;
        }
    }

    /// How many jobs it has room for in all.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Sums alone are changed under it, so a panic cannot leave it half-changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn ready(window: &Window) -> Option<usize> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(window.reserve()).poll(&mut context) {
            std::task::Poll::Ready(room) => Some(room),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn a_window_holds_two_batches_per_instance_and_waits_for_worthwhile_room() {
        let window = Window::new(8, 2);
        assert_eq!(ready(&window), Some(32));
        assert_eq!(ready(&window), None);
        window.release(3);
        assert_eq!(ready(&window), None);
        window.release(1);
        assert_eq!(ready(&window), Some(4));
    }

    #[test]
    fn a_model_without_batches_gets_every_free_place() {
        let window = Window::new(1, 1);
        assert_eq!(ready(&window), Some(2));
        window.release(1);
        assert_eq!(ready(&window), Some(1));
    }

    #[test]
    fn nothing_is_received_while_too_many_results_wait_for_the_ledger() {
        let window = Window::new(1, 1);
        for _ in 0..5 {
            assert!(ready(&window).is_some());
            window.ran(1);
        }
        assert_eq!(ready(&window), None);
        window.written(1);
        assert_eq!(ready(&window), Some(1));
    }

    #[tokio::test]
    async fn who_waits_for_the_ledger_is_woken_when_it_has_been_told_of_everything() {
        let window = Window::new(2, 1);
        assert_eq!(window.reserve().await, 4);
        window.all_written().await;
        window.ran(2);
        tokio::join!(window.all_written(), async {
            window.written(1);
            window.written(1);
        });
    }

    #[tokio::test]
    async fn a_release_wakes_who_waits_for_room() {
        let window = Window::new(1, 1);
        assert_eq!(window.reserve().await, 2);
        let (room, ()) = tokio::join!(window.reserve(), async { window.release(2) });
        assert_eq!(room, 2);
    }
}
