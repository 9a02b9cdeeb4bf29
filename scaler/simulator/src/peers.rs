//! Other autoscalers in the same pool: a constant number of workers, and the autoscaler of Knative.

use std::collections::VecDeque;
use std::time::Duration;

use super::decider::Decider;
use super::view::View;

/// A constant number of workers.
#[derive(Debug, Clone)]
pub struct Fixed {
    workers: u32,
    next: Duration,
}

impl Fixed {
    /// A pool with this number of workers.
    pub fn new(workers: u32) -> Self {
        Self { workers, next: Duration::ZERO }
    }
}

impl Decider for Fixed {
    fn due(&self) -> Duration {
        self.next
    }

    fn decide(&mut self, view: &View) -> u32 {
        self.next = view.now + Duration::from_secs(15);
        self.workers
    }

    fn on_arrival(&mut self, _: &View) -> u32 {
        self.workers
    }
}

/// The Knative Pod Autoscaler with its defaults, for the metric concurrency. The concurrency of a pool is its backlog:
/// jobs that wait are requests that the activator or the queue proxies hold.
///
/// Source: Knative Serving 1.19, `pkg/autoscaler/scaling/autoscaler.go` and `pkg/reconciler/autoscaling/kpa/scaler.go`.
/// Left out: the limit of a rise in one turn (1000 times), and the time that the activator needs.
#[derive(Debug, Clone)]
pub struct Kpa {
    /// The concurrency per worker that the autoscaler aims at.
    target: f64,
    max: u32,
    /// The concurrency in each second of the stable window, the latest one last.
    samples: VecDeque<f64>,
    next: Duration,
    /// When the panic threshold was last exceeded, in panic mode.
    panicking_since: Option<Duration>,
    most_in_panic: f64,
    /// Since when the pool should have no worker.
    unneeded_since: Option<Duration>,
    wanted: u32,
}

/// `stable-window`, in samples of a second.
const STABLE_WINDOW: usize = 60;

/// `panic-window-percentage` of the stable window: 10 %.
const PANIC_WINDOW: usize = 6;

/// `panic-threshold-percentage`.
const PANIC_THRESHOLD: f64 = 2.0;

/// `container-concurrency-target-percentage`.
const TARGET_UTILIZATION: f64 = 0.7;

/// `max-scale-down-rate`.
const MAX_SCALE_DOWN_RATE: f64 = 2.0;

/// `scale-to-zero-grace-period`.
const SCALE_TO_ZERO_GRACE: Duration = Duration::from_secs(30);

impl Kpa {
    /// The autoscaler for workers that serve `concurrency` jobs at the same time (`containerConcurrency`).
    pub fn new(concurrency: u32, max: u32) -> Self {
        Self {
            target: TARGET_UTILIZATION * f64::from(concurrency.max(1)),
            max,
            samples: VecDeque::new(),
            next: Duration::ZERO,
            panicking_since: None,
            most_in_panic: 0.0,
            unneeded_since: None,
            wanted: 0,
        }
    }

    fn average(&self, window: usize) -> f64 {
        let count = self.samples.len().min(window).max(1);
        self.samples.iter().rev().take(count).sum::<f64>() / count as f64
    }

    fn desired(&mut self, view: &View) -> f64 {
        let ready = f64::from(view.ready()).max(1.0);
        let least = (ready / MAX_SCALE_DOWN_RATE).floor();
        let stable = (self.average(STABLE_WINDOW) / self.target).ceil();
        let panic = (self.average(PANIC_WINDOW) / self.target).ceil();
        if panic / ready >= PANIC_THRESHOLD {
            self.panicking_since = Some(view.now);
        } else if self.panicking_since.is_some_and(|since| view.now > since + Duration::from_secs(60)) {
            self.panicking_since = None;
            self.most_in_panic = 0.0;
        }
        let stable = stable.max(least);
        if self.panicking_since.is_none() {
            return stable;
        }
        // In panic mode the number never falls.
        self.most_in_panic = self.most_in_panic.max(stable).max(panic.max(least));
        self.most_in_panic
    }
}

impl Decider for Kpa {
    fn due(&self) -> Duration {
        self.next
    }

    fn decide(&mut self, view: &View) -> u32 {
        self.next = view.now + Duration::from_secs(1);
        self.samples.push_back((view.waiting() + view.leased) as f64);
        if self.samples.len() > STABLE_WINDOW {
            self.samples.pop_front();
        }
        // `tick-interval`.
        if view.now.as_secs() % 2 == 1 {
            return self.wanted;
        }
        let desired = self.desired(view).min(f64::from(self.max)) as u32;
        if desired > 0 || self.wanted == 0 {
            self.unneeded_since = None;
            self.wanted = desired;
        } else {
            let since = *self.unneeded_since.get_or_insert(view.now);
            self.wanted = u32::from(view.now < since + SCALE_TO_ZERO_GRACE);
        }
        self.wanted
    }

    /// The activator asks for the first worker as soon as a request arrives.
    fn on_arrival(&mut self, _: &View) -> u32 {
        self.wanted = self.wanted.max(1);
        self.wanted
    }
}

#[cfg(test)]
mod tests {
    use policy::reading::Fleet;

    use super::*;

    fn view(second: u64, concurrency: u64, ready: u64) -> View {
        let fleet = Fleet { ready, ..Fleet::default() };
        View { now: Duration::from_secs(second), waiting: [0, concurrency, 0], fleet, ..View::default() }
    }

    /// Constant concurrency and workers, from one second until another.
    fn drive(kpa: &mut Kpa, seconds: std::ops::Range<u64>, concurrency: u64, ready: u64) -> Vec<u32> {
        seconds.map(|second| kpa.decide(&view(second, concurrency, ready))).collect()
    }

    #[test]
    fn a_constant_concurrency_gets_the_workers_of_the_target() {
        let mut kpa = Kpa::new(10, 100);
        // 70 % of 10 per worker.
        assert_eq!(drive(&mut kpa, 0..120, 21, 3).last(), Some(&3));
        assert_eq!(drive(&mut kpa, 120..240, 22, 3).last(), Some(&4));
    }

    #[test]
    fn a_burst_over_twice_the_capacity_panics_and_the_number_stays_for_a_stable_window() {
        let mut kpa = Kpa::new(10, 100);
        drive(&mut kpa, 0..60, 7, 1);
        let burst = drive(&mut kpa, 60..70, 700, 1);
        assert_eq!(burst.last(), Some(&100), "{burst:?}");
        let after = drive(&mut kpa, 70..120, 7, 100);
        assert!(after.iter().all(|wanted| *wanted == 100), "{after:?}");
        // The panic ends, and the number falls by at most half in a turn.
        let later = drive(&mut kpa, 120..140, 7, 100);
        assert_eq!(later.last(), Some(&50), "{later:?}");
    }

    #[test]
    fn an_idle_pool_goes_to_zero_after_the_stable_window_and_the_grace_period_and_a_job_starts_it() {
        let mut kpa = Kpa::new(10, 100);
        assert_eq!(kpa.on_arrival(&view(0, 1, 0)), 1);
        drive(&mut kpa, 0..10, 1, 1);
        let idle = drive(&mut kpa, 10..200, 0, 1);
        let zero = idle.iter().position(|wanted| *wanted == 0);
        assert!((85..=95).contains(&zero.unwrap()), "{zero:?}");
    }
}
