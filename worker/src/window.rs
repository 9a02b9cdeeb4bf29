//! How many jobs a worker may hold that have not run yet.
//!
//! Two batches per instance: one runs, the next is prepared meanwhile. Everything else waits in the broker, where the
//! scaler sees it and another worker can take it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Room for a bounded number of jobs.
#[derive(Debug)]
pub(crate) struct Window {
    size: usize,
    /// Less room than this is not worth a round trip while the rest of the window keeps the device busy.
    worthwhile: usize,
    held: Mutex<usize>,
    freed: Notify,
}

impl Window {
    pub(crate) fn new(max_batch_items: usize, instances: usize) -> Self {
        let size = 2 * max_batch_items * instances;
        Self { size, worthwhile: (max_batch_items / 2).max(1), held: Mutex::new(0), freed: Notify::new() }
    }

    /// Waits for a worthwhile amount of room and takes all there is; returns how many jobs it is for.
    pub(crate) async fn reserve(&self) -> usize {
        loop {
            let freed = self.freed.notified();
            {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                let room = self.size - *held;
                if room >= self.worthwhile {
                    *held = self.size;
                    return room;
                }
            }
            freed.await;
        }
    }

    /// Gives room back: what a receive did not need, or what has run.
    pub(crate) fn release(&self, jobs: usize) {
        if jobs > 0 {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) -= jobs;
            self.freed.notify_one();
        }
    }

    /// How many jobs it has room for in all.
    pub(crate) fn size(&self) -> usize {
        self.size
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

    #[tokio::test]
    async fn a_release_wakes_who_waits_for_room() {
        let window = Window::new(1, 1);
        assert_eq!(window.reserve().await, 2);
        let (room, ()) = tokio::join!(window.reserve(), async { window.release(2) });
        assert_eq!(room, 2);
    }
}
