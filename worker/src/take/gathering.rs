//! Gathers the prepared jobs of one claim, so that one push brings a device as many of them as possible.
//!
//! Small pushes make small batches, small batches make small receives and small writes to the ledger, and each of these
//! has a fixed cost.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The longest time for which a prepared job waits for others of its claim. Waking a device thread takes a few hundredths
/// of this time.
const LONGEST_GATHERING: Duration = Duration::from_millis(1);

/// The jobs of one claim. Several threads prepare them.
pub(super) struct Gathering<Job, Ready> {
    state: Mutex<State<Job, Ready>>,
    /// No job is in preparation any more.
    all_prepared: Condvar,
}

struct State<Job, Ready> {
    to_prepare: std::vec::IntoIter<Job>,
    in_preparation: usize,
    ready: Vec<Ready>,
    gathering_since: Instant,
}

impl<Job, Ready> Gathering<Job, Ready> {
    pub(super) fn new(jobs: Vec<Job>) -> Self {
        let (to_prepare, gathering_since) = (jobs.into_iter(), Instant::now());
        let state = State { to_prepare, in_preparation: 0, ready: Vec::new(), gathering_since };
        Self { state: Mutex::new(state), all_prepared: Condvar::new() }
    }

    /// The next job to prepare. Each must come back through [`Gathering::add`].
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let next = state.to_prepare.next()?;
        state.in_preparation += 1;
        Some(next)
    }

    /// Adds a prepared job; `None` if the job ended instead. Returns the jobs to push now, if they have waited long enough.
    pub(super) fn add(&self, ready: Option<Ready>) -> Vec<Ready> {
        let mut state = self.state.lock();
        state.in_preparation -= 1;
        state.ready.extend(ready);
        if state.in_preparation == 0 {
            self.all_prepared.notify_all();
        }
        if state.gathering_since.elapsed() < LONGEST_GATHERING {
            return Vec::new();
        }
        state.gathering_since = Instant::now();
        std::mem::take(&mut state.ready)
    }

    /// The jobs to push by a thread that finds no job to prepare. Waits for the jobs that other threads prepare, but not
    /// longer than a gathering takes: one of them may take long.
    pub(super) fn rest(&self) -> Vec<Ready> {
        let mut state = self.state.lock();
        let until = state.gathering_since + LONGEST_GATHERING;
        while !state.ready.is_empty() && state.in_preparation > 0 {
            if self.all_prepared.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        std::mem::take(&mut state.ready)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn two_threads_gather_the_jobs_of_a_claim_for_one_push() {
        let gathering = Arc::new(Gathering::new(vec![1, 2, 3]));
        let (first, second) = (gathering.next().unwrap(), gathering.next().unwrap());
        gathering.state.lock().gathering_since = Instant::now() + Duration::from_secs(60);
        assert!(gathering.add(Some(first)).is_empty());
        let third = gathering.next().unwrap();
        assert!(gathering.add(Some(third)).is_empty());
        assert_eq!(gathering.next(), None);
        let waiting = thread::spawn({
            let gathering = Arc::clone(&gathering);
            move || gathering.rest()
        });
        let pushed = gathering.add(Some(second));
        assert!(pushed.is_empty());
        assert_eq!(waiting.join().unwrap(), [1, 3, 2]);
        assert!(gathering.rest().is_empty());
    }

    #[test]
    fn jobs_that_waited_long_enough_do_not_wait_for_a_slow_one() {
        let gathering = Gathering::new(vec!["slow", "quick", "quicker"]);
        gathering.next().unwrap();
        let quick = gathering.next().unwrap();
        gathering.state.lock().gathering_since -= LONGEST_GATHERING;
        assert_eq!(gathering.add(Some(quick)), ["quick"]);
        let quicker = gathering.next().unwrap();
        let mut pushed = gathering.add(Some(quicker));
        assert_eq!(gathering.next(), None);
        // The slow one is still in preparation.
        pushed.extend(gathering.rest());
        assert_eq!(pushed, ["quicker"]);
    }
}
