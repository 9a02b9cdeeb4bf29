//! The bounds on the jobs that a worker holds.
//!
//! Per instance, a worker holds at most two batches of jobs that have not run. One of them runs, and the next one is
//! prepared meanwhile. All other jobs wait in the broker, where the scaler counts them and another worker can take
//! them.
//!
//! Messages, and results that wait for the ledger, take memory. With too many of them, the worker receives no further
//! jobs.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use queue::Blobs;
use tokio::sync::Notify;

/// The places for jobs in this worker.
#[derive(Debug)]
pub(crate) struct Window {
    size: usize,
    /// The smallest number of free places for which the worker receives jobs. The device is busy with the other jobs
    /// meanwhile.
    min_room: usize,
    max_to_write: usize,
    max_bytes: u64,
    counts: Mutex<Counts>,
    has_room: Notify,
    all_written: Notify,
}

#[derive(Debug)]
struct Counts {
    /// The jobs in [`Stage::ToRun`], and the places of receives in progress.
    to_run: usize,
    /// The jobs in [`Stage::ToWrite`].
    to_write: usize,
    /// The number of waits for the ledger that have begun.
    generation: u64,
    /// The jobs in [`Stage::ToWrite`], by the generation in which they came. Generations without jobs are missing.
    to_write_by_generation: BTreeMap<u64, usize>,
    /// The bytes of messages and outputs of all jobs.
    bytes: u64,
    /// The bytes of the largest message of the last receive. The next one may have as many messages of this size as
    /// there is memory for.
    largest_message: u64,
}

/// The part of the window in which a job counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Received, and not run yet.
    ToRun,
    /// Run or given up, and not written to the ledger yet.
    ToWrite { generation: u64 },
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
    bytes: u64,
}

impl Window {
    /// `max_bytes`: the worker receives jobs while the messages and outputs of its jobs have fewer bytes.
    pub(crate) fn new(max_batch_items: usize, instances: usize, max_bytes: u64) -> Self {
        let size = 2 * max_batch_items * instances;
        Self {
            size,
            min_room: (max_batch_items / 2).max(1),
            max_to_write: 2 * size,
            max_bytes,
            counts: Mutex::new(Counts {
                to_run: 0,
                to_write: 0,
                generation: 0,
                to_write_by_generation: BTreeMap::new(),
                bytes: 0,
                largest_message: Blobs::INLINE_LIMIT_BYTES as u64,
            }),
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
                    counts.to_run += places;
                    return Room { window: Arc::clone(self), places };
                }
            }
            has_room.await;
        }
    }

    /// Counts the messages of a receive. `bytes` has the size of each.
    pub(crate) fn received<'p>(&self, places: impl Iterator<Item = (&'p mut Place, u64)>) {
        let (mut sum, mut largest) = (0, 0);
        for (place, bytes) in places {
            place.bytes += bytes;
            sum += bytes;
            largest = bytes.max(largest);
        }
        let mut counts = self.lock();
        counts.bytes += sum;
        counts.largest_message = largest;
    }

    /// Waits until the ledger has the results of all jobs that have run so far. It does not wait for those that run
    /// meanwhile on other devices.
    pub(crate) async fn wait_until_written(&self) {
        let generation = {
            let mut counts = self.lock();
            counts.generation += 1;
            counts.generation
        };
        loop {
            let all_written = self.all_written.notified();
            if self.lock().to_write_by_generation.range(..generation).next().is_none() {
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
        let bytes = self.max_bytes.checked_sub(counts.bytes).filter(|bytes| *bytes > 0)?;
        let fit = usize::try_from(bytes / counts.largest_message.max(1)).unwrap_or(usize::MAX).max(1);
        (places >= self.min_room && counts.to_write <= self.max_to_write).then_some(places.min(fit))
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let oldest = |counts: &Counts| counts.to_write_by_generation.keys().next().copied();
        let mut counts = self.lock();
        let oldest_before = oldest(&counts);
        change(&mut counts);
        let (oldest, has_room) = (oldest(&counts), self.free_places(&counts).is_some());
        drop(counts);
        if oldest != oldest_before {
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
        Some(Place { window: Arc::clone(&self.window), stage: Stage::ToRun, bytes: 0 })
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
            let generation = counts.generation;
            *counts.to_write_by_generation.entry(generation).or_default() += places.len();
            places.iter_mut().for_each(|place| place.stage = Stage::ToWrite { generation });
        });
    }

    /// Counts bytes that the job of this place holds until the place is free.
    pub(crate) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.window.change(|counts| counts.bytes += bytes);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.window.change(|counts| {
            counts.bytes -= self.bytes;
            match self.stage {
                Stage::ToRun => counts.to_run -= 1,
                Stage::ToWrite { generation } => {
                    counts.to_write -= 1;
                    if let Entry::Occupied(mut jobs) = counts.to_write_by_generation.entry(generation) {
                        *jobs.get_mut() -= 1;
                        if *jobs.get() == 0 {
                            jobs.remove();
                        }
                    }
                }
            }
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
        Arc::new(Window::new(max_batch_items, instances, 1 << 30))
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

    #[test]
    fn a_wait_for_the_ledger_does_not_wait_for_later_results() {
        let window = window(2, 1);
        let mut places = room(&window).unwrap();
        let is_over = |wait: &mut std::pin::Pin<Box<dyn Future<Output = ()> + '_>>| {
            wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        Place::wait_for_ledger(places[..2].iter_mut());
        let mut wait: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(window.wait_until_written());
        assert!(!is_over(&mut wait));
        Place::wait_for_ledger(places[2..3].iter_mut());
        places.remove(0);
        assert!(!is_over(&mut wait));
        places.remove(0);
        assert!(is_over(&mut wait));
    }

    #[test]
    fn jobs_are_received_only_while_messages_and_outputs_fit_into_the_memory() {
        let window = Arc::new(Window::new(4, 1, 4 << 20));
        let mut places = room(&window).unwrap();
        assert_eq!(places.len(), 8);
        places.truncate(4);
        window.received(places.iter_mut().map(|place| (place, 1 << 20)));
        assert!(room(&window).is_none());
        // Of messages as large as the last ones, two fit.
        places.truncate(2);
        let more = room(&window).unwrap();
        assert_eq!(more.len(), 2);
        drop(more);
        places[0].add_bytes(2 << 20);
        assert!(room(&window).is_none());
        places.clear();
        assert_eq!(room(&window).unwrap().len(), 4);
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
