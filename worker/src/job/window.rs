//! The bounds on the jobs that a worker holds.
//!
//! Per instance, a worker holds at most two batches of jobs that have not run. One of them runs, and the next one is
//! prepared meanwhile. All other jobs wait in the broker, where the scaler counts them and another worker can take
//! them.
//!
//! Results that wait for the ledger take memory. With too many of them, the worker receives no further jobs.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The places for jobs in this worker.
#[derive(Debug)]
pub(crate) struct Window {
    size: usize,
    /// The smallest number of free places for which the worker receives jobs. The device is busy with the other jobs
    /// meanwhile.
    min_room: usize,
    max_to_write: usize,
    counts: Mutex<Counts>,
    has_room: Notify,
    all_written: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// The jobs in [`Stage::ToRun`], and the places of receives in progress.
    to_run: usize,
    /// The jobs in [`Stage::ToWrite`].
    to_write: usize,
}

/// The part of the window in which a job counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Received, and not run yet.
    ToRun,
    /// Run or given up, and not written to the ledger yet.
    ToWrite,
}

/// Free places for the jobs of one receive, as an iterator. Dropping it frees the remaining places.
#[derive(Debug)]
pub(crate) struct Room {
    window: Arc<Window>,
    places: usize,
}

/// The place of one job in the window. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place {
    window: Arc<Window>,
    stage: Stage,
}

impl Window {
    pub(crate) fn new(max_batch_items: usize, instances: usize) -> Self {
        let size = 2 * max_batch_items * instances;
        Self {
            size,
            min_room: (max_batch_items / 2).max(1),
            max_to_write: 2 * size,
            counts: Mutex::default(),
            has_room: Notify::new(),
            all_written: Notify::new(),
        }
    }

    /// Waits until enough places are free for a receive, and takes all free places.
    pub(crate) async fn room(self: &Arc<Self>) -> Room {
        loop {
            let has_room = self.has_room.notified();
            {
                let mut counts = self.lock();
                if let Some(places) = self.free_places(&counts) {
                    counts.to_run = self.size;
                    return Room { window: Arc::clone(self), places };
                }
            }
            has_room.await;
        }
    }

    /// Waits until the ledger has the results of all jobs that ran.
    pub(crate) async fn wait_until_written(&self) {
        loop {
            let all_written = self.all_written.notified();
            if self.lock().to_write == 0 {
                return;
            }
            all_written.await;
        }
    }

    /// The number of all places for jobs that have not run.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The places for the next receive. `None`: too few places are free, or too many results wait.
    fn free_places(&self, counts: &Counts) -> Option<usize> {
        let places = self.size - counts.to_run;
        (places >= self.min_room && counts.to_write <= self.max_to_write).then_some(places)
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.lock();
        change(&mut counts);
        let (is_all_written, has_room) = (counts.to_write == 0, self.free_places(&counts).is_some());
        drop(counts);
        if is_all_written {
            self.all_written.notify_waiters();
        }
        if has_room {
            self.has_room.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Only sums change under the lock, so a panic cannot leave them half-changed.
        self.counts.lock()
    }
}

impl Room {
    /// The number of places that are left.
    pub(crate) fn places(&self) -> usize {
        self.places
    }
}

impl Iterator for Room {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        self.places = self.places.checked_sub(1)?;
        Some(Place { window: Arc::clone(&self.window), stage: Stage::ToRun })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.places > 0 {
            self.window.change(|counts| counts.to_run -= self.places);
        }
    }
}

impl Place {
    /// The jobs of these places, all of one window, have run or will not run: they now wait for the ledger.
    ///
    /// All places move at once, so that the next receive is for a whole batch of jobs.
    pub(crate) fn wait_for_ledger<'p>(places: impl Iterator<Item = &'p mut Self>) {
        let mut places: Vec<_> = places.filter(|place| place.stage == Stage::ToRun).collect();
        let Some(window) = places.first().map(|place| Arc::clone(&place.window)) else { return };
        window.change(|counts| {
            counts.to_run -= places.len();
            counts.to_write += places.len();
            places.iter_mut().for_each(|place| place.stage = Stage::ToWrite);
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.window.change(|counts| match self.stage {
            Stage::ToRun => counts.to_run -= 1,
            Stage::ToWrite => counts.to_write -= 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn window(max_batch_items: usize, instances: usize) -> Arc<Window> {
        Arc::new(Window::new(max_batch_items, instances))
    }

    fn room(window: &Arc<Window>) -> Option<Vec<Place>> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(window.room()).poll(&mut context) {
            Poll::Ready(room) => Some(room.collect()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_window_holds_two_batches_per_instance_and_waits_for_worthwhile_room() {
        let window = window(8, 2);
        let mut places = room(&window).unwrap();
        assert_eq!(places.len(), 32);
        assert!(room(&window).is_none());
        places.truncate(29);
        assert!(room(&window).is_none());
        places.truncate(28);
        assert_eq!(room(&window).unwrap().len(), 4);
    }

    #[test]
    fn a_model_without_batches_gets_every_free_place() {
        let window = window(1, 1);
        let mut places = room(&window).unwrap();
        assert_eq!(places.len(), 2);
        places.pop();
        assert_eq!(room(&window).unwrap().len(), 1);
    }

    #[test]
    fn places_that_a_receive_did_not_need_are_free_again() {
        let window = window(1, 1);
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(mut receive) = pin!(window.room()).poll(&mut context) else { panic!("it is empty") };
        assert_eq!(receive.places(), 2);
        let _taken = receive.next();
        assert!(room(&window).is_none());
        drop(receive);
        assert_eq!(room(&window).unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_received_while_too_many_results_wait_for_the_ledger() {
        let window = window(1, 1);
        let (mut to_run, mut to_write) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            to_run.extend(room(&window).unwrap());
            let mut ran = to_run.remove(0);
            Place::wait_for_ledger([&mut ran].into_iter());
            to_write.push(ran);
        }
        assert!(room(&window).is_none());
        to_write.pop();
        assert_eq!(room(&window).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_wait_for_the_ledger_ends_when_all_results_are_written() {
        let window = window(2, 1);
        let mut places: Vec<_> = window.room().await.collect();
        assert_eq!(places.len(), 4);
        window.wait_until_written().await;
        Place::wait_for_ledger(places[..2].iter_mut());
        tokio::join!(window.wait_until_written(), async {
            places.remove(0);
            places.remove(0);
        });
    }

    #[tokio::test]
    async fn freed_places_end_a_wait_for_room() {
        let window = window(1, 1);
        let places: Vec<_> = window.room().await.collect();
        assert_eq!(places.len(), 2);
        let (room, ()) = tokio::join!(window.room(), async { drop(places) });
        assert_eq!(room.places(), 2);
    }
}
