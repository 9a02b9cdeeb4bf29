//! When to send which state on KEDA's push stream.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The shortest time between two changes to `true` while a worker is registered. Each one makes KEDA write the status of
/// the ScaledObject. KEDA's cooldown, whose usual length is minutes, needs no more.
const MIN_DISTANCE: Duration = Duration::from_secs(10);

/// The states that one stream has sent, and when the last one is repeated.
///
/// A stream sends the state once and then only changes to `true`. Every `true` restarts KEDA's cooldown, so an endless
/// repetition would prevent scale to zero. A `false` has no effect. But KEDA drops a `true` while the HPA does not know
/// the metric yet. So `true` is repeated with growing pauses until a worker of the pool has registered.
#[derive(Debug, Default)]
pub(crate) struct Push {
    sent: Option<bool>,
    /// When the last change to `true` was sent.
    sent_at: Option<Instant>,
    /// When to send a change that came too soon.
    postponed: Option<Instant>,
    repeat: Option<Repeat>,
}

/// The next repetition of `true`.
#[derive(Debug)]
struct Repeat {
    due: Instant,
    pause: Duration,
    pauses: ExponentialBackoff,
}

impl Repeat {
    fn first(now: Instant) -> Self {
        let pauses = ExponentialBuilder::default().with_factor(2.0).with_min_delay(FIRST_PAUSE);
        let mut pauses = pauses.with_max_delay(MAX_PAUSE).without_max_times().build();
        let pause = pauses.next().unwrap_or(FIRST_PAUSE);
        Self { due: now + pause, pause, pauses }
    }

    /// The same repetition, one pause from now.
    fn postponed(self, now: Instant) -> Self {
        Self { due: now + self.pause, ..self }
    }

    /// The repetition after this one.
    fn next(mut self, now: Instant) -> Self {
        let pause = self.pauses.next().unwrap_or(MAX_PAUSE);
        Self { due: now + pause, pause, ..self }
    }
}

impl Push {
    /// When to compute the state again even if no reading has changed. `None`: this is not necessary.
    pub(crate) fn due(&self) -> Option<Instant> {
        let repeat = self.repeat.as_ref().map(|repeat| repeat.due);
        repeat.or(self.postponed)
    }

    /// Sends nothing, because the pool has no current reading. A repetition is postponed. If no state was ever sent,
    /// the state is computed again after a pause.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<bool> {
        let first = self.sent.is_none().then(|| Repeat::first(now));
        self.repeat = self.repeat.take().map(|repeat| repeat.postponed(now)).or(first);
        None
    }

    /// The state to send now, if any.
    pub(crate) fn next(&mut self, now: Instant, active: bool, workers: u64) -> Option<bool> {
        let first = self.sent.is_none();
        let becomes_active = active && self.sent != Some(true);
        let is_too_soon = self.sent_at.is_some_and(|at| now < at + MIN_DISTANCE);
        if becomes_active && !first && workers > 0 && is_too_soon {
            // If the pool is still active after this time, the change is sent then.
            self.postponed = self.sent_at.map(|at| at + MIN_DISTANCE);
            return None;
        }
        self.postponed = None;
        if becomes_active {
            self.sent_at = Some(now);
        }
        self.sent = Some(active);
        if !active || workers > 0 {
            self.repeat = None;
        } else if becomes_active {
            self.repeat = Some(Repeat::first(now));
        } else if let Some(repeat) = self.repeat.take_if(|repeat| now >= repeat.due) {
            self.repeat = Some(repeat.next(now));
            return Some(true);
        }
        (first || becomes_active).then_some(active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C12.
    #[test]
    fn a_stream_sends_the_state_at_once_and_then_only_changes_to_active() {
        let (mut push, now) = (Push::default(), Instant::now());
        let mut later = now;
        let sent: Vec<_> = [false, false, true, true, false, false, true]
            .map(|active| {
                later += MIN_DISTANCE;
                push.next(later, active, 1)
            })
            .to_vec();
        assert_eq!(sent, [Some(false), None, Some(true), None, None, None, Some(true)]);
        assert_eq!(Push::default().next(now, true, 1), Some(true));
    }

    /// C12.
    #[test]
    fn while_a_worker_is_registered_changes_to_active_are_at_least_ten_seconds_apart() {
        let (mut push, start) = (Push::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(push.next(at(0), true, 1), Some(true));
        // A job every two seconds.
        let sent = (1..30).filter(|second| push.next(at(*second), second % 2 == 0, 1) == Some(true));
        assert_eq!(sent.collect::<Vec<u64>>(), [10, 20]);
        assert_eq!((push.next(at(30), false, 1), push.next(at(31), true, 0)), (None, Some(true)));
        assert_eq!((push.next(at(32), false, 1), push.next(at(33), true, 1)), (None, None));
        // It is sent when the time is over, without another reading.
        assert_eq!(push.due(), Some(at(41)));
        assert_eq!(push.next(at(41), true, 1), Some(true));
    }

    /// C12.
    #[test]
    fn active_is_repeated_with_growing_pauses_until_a_worker_has_registered() {
        let (mut push, start) = (Push::default(), Instant::now());
        let at: Vec<u64> =
            (0..200).filter(|second| push.next(start + Duration::from_secs(*second), true, 0) == Some(true)).collect();
        assert_eq!(at, [0, 2, 6, 14, 30, 62, 122, 182]);
        let later = start + Duration::from_secs(1000);
        assert_eq!(push.next(later, true, 1), None);
        assert_eq!(push.next(later + MAX_PAUSE, true, 0), None);
    }

    /// C12.
    #[test]
    fn a_state_that_was_unknown_at_first_is_sent_once_it_is_known() {
        let (mut push, start) = (Push::default(), Instant::now());
        assert_eq!(push.wait(start), None);
        let due = push.due().unwrap();
        assert_eq!(push.wait(due), None);
        assert!(push.due().unwrap() > due);
        assert_eq!(push.next(push.due().unwrap(), false, 1), Some(false));
        assert_eq!((push.wait(due), push.due()), (None, None));
    }
}
