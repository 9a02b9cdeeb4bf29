//! When to say what on KEDA's push stream.

use std::time::Duration;

use tokio::time::Instant;

const FIRST_REPEAT: Duration = Duration::from_secs(2);
const SLOWEST_REPEAT: Duration = Duration::from_secs(60);

/// What one stream has said so far.
///
/// The state once, then only edges to `true`: every `true` restarts KEDA's cooldown, so one repeated for ever would
/// keep the pool from zero for ever, and a `false` has no effect. But a `true` is dropped while the HPA does not know
/// the metric yet; so it is repeated, ever more slowly, as long as no worker of the pool has registered.
#[derive(Debug, Default)]
pub(crate) struct Push {
    said: Option<bool>,
    repeat: Option<(Instant, Duration)>,
}

impl Push {
    /// When to ask again, though nothing has changed. `None`: then there is no need to.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.repeat.map(|(due, _)| due)
    }

    /// Nothing is known now: what was due is due later, and the state, if it was never said, as soon as it is known.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<bool> {
        let pause = self.repeat.map(|(_, pause)| pause).or(self.said.is_none().then_some(FIRST_REPEAT));
        self.repeat = pause.map(|pause| (now + pause, pause));
        None
    }

    /// What to send now, if anything.
    pub(crate) fn next(&mut self, now: Instant, active: bool, workers: u64) -> Option<bool> {
        let first = self.said.is_none();
        let edge = active && self.said != Some(true);
        self.said = Some(active);
        if !active || workers > 0 {
            self.repeat = None;
        } else if edge {
            self.repeat = Some((now + FIRST_REPEAT, FIRST_REPEAT));
        } else if let Some((due, pause)) = self.repeat
            && now >= due
        {
            let pause = (pause * 2).min(SLOWEST_REPEAT);
            self.repeat = Some((now + pause, pause));
            return Some(true);
        }
        (first || edge).then_some(active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C12.
    #[test]
    fn a_stream_says_the_state_at_once_and_then_only_edges_to_active() {
        let (mut push, now) = (Push::default(), Instant::now());
        let said: Vec<_> =
            [false, false, true, true, false, false, true].map(|active| push.next(now, active, 1)).to_vec();
        assert_eq!(said, [Some(false), None, Some(true), None, None, None, Some(true)]);
        assert_eq!(Push::default().next(now, true, 1), Some(true));
    }

    /// C12.
    #[test]
    fn active_is_repeated_ever_more_slowly_while_no_worker_has_registered() {
        let (mut push, start) = (Push::default(), Instant::now());
        let at: Vec<u64> =
            (0..200).filter(|second| push.next(start + Duration::from_secs(*second), true, 0) == Some(true)).collect();
        assert_eq!(at, [0, 2, 6, 14, 30, 62, 122, 182]);
        let later = start + Duration::from_secs(1000);
        assert_eq!(push.next(later, true, 1), None);
        assert_eq!(push.next(later + SLOWEST_REPEAT, true, 0), None);
    }
    /// C12.
    #[test]
    fn a_state_that_could_not_be_said_at_first_is_said_once_it_is_known() {
        let (mut push, start) = (Push::default(), Instant::now());
        assert_eq!(push.wait(start), None);
        let due = push.due().unwrap();
        assert_eq!(push.wait(due), None);
        assert!(push.due().unwrap() > due);
        assert_eq!(push.next(push.due().unwrap(), false, 1), Some(false));
        assert_eq!((push.wait(due), push.due()), (None, None));
    }
}
