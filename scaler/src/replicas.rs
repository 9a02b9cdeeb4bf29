//! What KEDA and the HPA make of a scaler's answers, in virtual time.
//!
//! In a cluster KEDA takes a workload from 0 to 1 and back to 0, and the HorizontalPodAutoscaler everything between.
//! [`Replicas`] is both, for one workload with one trigger. It holds no clock and does no I/O: whoever drives it passes
//! the time, asks the scaler when [`Replicas::due`] says so, and makes the number of workers what it returns.
//!
//! ```
//! # use std::time::Duration;
//! # use millrace_scaler::replicas::{Observation, Replicas, Rules};
//! let mut replicas = Replicas::new(Rules::default(), 0, Duration::ZERO);
//! let mut now = Duration::ZERO;
//! for _ in 0..3 {
//!     now = now.max(replicas.due());
//!     // Ask GetMetricSpec, GetMetrics and IsActive; an error of any of them is `None`.
//!     let wanted = replicas.observe(now, Some(Observation { active: true, value: 25.0, target: 10.0 }));
//!     assert!(wanted >= 1);
//! }
//! assert_eq!(replicas.count(), 3);
//! ```
//!
//! Sources: KEDA's `scale_handler` and `scale_scaledobjects`; Kubernetes' horizontal controller (metric type
//! AverageValue). Left out: fallback, idleReplicaCount, several triggers, and limits on the speed downwards, whose
//! default lets everything go at once.

use std::collections::VecDeque;
use std::time::Duration;

/// What a ScaledObject and its HPA are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The fewest replicas (`minReplicaCount`).
    pub min: u32,
    /// The most replicas (`maxReplicaCount`), at least 1.
    pub max: u32,
    /// How often KEDA asks whether there is a reason to run (`pollingInterval`).
    pub polling_interval: Duration,
    /// How long after it was last active a workload goes to 0 (`cooldownPeriod`).
    pub cooldown: Duration,
    /// How long after its creation a workload that was never active goes to 0 (`initialCooldownPeriod`).
    pub initial_cooldown: Duration,
    /// How often the HPA reckons (`--horizontal-pod-autoscaler-sync-period`).
    pub sync_interval: Duration,
    /// A ratio this near to 1 changes nothing.
    pub tolerance: f64,
    /// Downwards, the largest recommendation of this window is used (`scaleDown.stabilizationWindowSeconds`).
    pub stabilization_window: Duration,
    /// Upwards, within `up_period`: so many more …
    pub up_replicas: u32,
    /// … or so many percent more, whichever is larger.
    pub up_percent: u32,
    /// The time over which changes are counted.
    pub up_period: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        crate::PoolScale::default().rules()
    }
}

/// What a scaler answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// IsActive.
    pub active: bool,
    /// GetMetrics, at least 0.
    pub value: f64,
    /// GetMetricSpec, above 0.
    pub target: f64,
}

/// The replicas of one workload. Times are counted from any fixed moment and never go back.
#[derive(Debug, Clone)]
pub struct Replicas {
    rules: Rules,
    count: u32,
    created: Duration,
    last_active: Option<Duration>,
    next_poll: Duration,
    next_sync: Duration,
    /// What the HPA has wanted within the stabilisation window.
    recommendations: VecDeque<(Duration, u32)>,
    /// What the HPA has changed within the period of its policy.
    changes: VecDeque<(Duration, i64)>,
}

impl Replicas {
    /// A workload that has `count` replicas at `now`. Both loops run for the first time at once.
    pub fn new(rules: Rules, count: u32, now: Duration) -> Self {
        let recommendations = if count > 0 { VecDeque::from([(now, count)]) } else { VecDeque::new() };
        Self {
            rules,
            count,
            created: now,
            last_active: None,
            next_poll: now,
            next_sync: now,
            recommendations,
            changes: VecDeque::new(),
        }
    }

    /// How many replicas there should be.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// When the scaler is to be asked next.
    pub fn due(&self) -> Duration {
        self.next_poll.min(self.next_sync)
    }

    /// Takes what the scaler answered at `now` (`None`: an error, or no answer) and returns how many replicas there
    /// should be. Before [`Replicas::due`] nothing changes.
    pub fn observe(&mut self, now: Duration, answer: Option<Observation>) -> u32 {
        // An answer that no client could use is an error.
        let answer = answer.filter(|seen| seen.value.is_finite() && seen.value >= 0.0 && seen.target.is_finite());
        if now >= self.next_poll {
            self.next_poll = now + self.rules.polling_interval;
            if let Some(seen) = answer {
                self.poll(now, seen.active);
            }
        }
        if now >= self.next_sync {
            self.next_sync = now + self.rules.sync_interval;
            // From 0 only KEDA leads.
            if let Some(seen) = answer.filter(|_| self.count > 0) {
                self.sync(now, seen);
            }
        }
        self.count
    }

    /// Takes a message of the push stream: `true` starts the first replica at once, outside the poll.
    pub fn pushed(&mut self, now: Duration, active: bool) -> u32 {
        if active {
            self.poll(now, true);
        }
        self.count
    }

    /// KEDA's turn.
    fn poll(&mut self, now: Duration, active: bool) {
        if active {
            self.last_active = Some(now);
            self.count = if self.count == 0 { self.rules.min.max(1) } else { self.count };
        } else if self.rules.min > 0 {
            self.count = self.count.max(self.rules.min);
        } else {
            let (since, pause) = match self.last_active {
                Some(last) => (last, self.rules.cooldown),
                None => (self.created, self.rules.initial_cooldown),
            };
            if now.saturating_sub(since) > pause {
                self.count = 0;
            }
        }
    }

    /// The HPA's turn.
    fn sync(&mut self, now: Duration, seen: Observation) {
        let (sum, target) = (thousandths(seen.value), thousandths(seen.target).max(1.0));
        let ratio = sum / (target * f64::from(self.count));
        let wanted =
            if (1.0 - ratio).abs() <= self.rules.tolerance { self.count } else { (sum / target).ceil() as u32 };

        self.recommendations.retain(|(at, _)| now.saturating_sub(*at) < self.rules.stabilization_window);
        self.recommendations.push_back((now, wanted));
        let largest = self.recommendations.iter().map(|(_, wanted)| *wanted).max().unwrap_or(wanted);
        let steady = if wanted > self.count { wanted } else { largest.min(self.count) };

        let least = self.rules.min.max(1);
        let next = steady.min(self.limit(now)).clamp(least, self.rules.max.max(least));
        if next != self.count {
            self.changes.push_back((now, i64::from(next) - i64::from(self.count)));
            self.count = next;
        }
    }

    /// The most replicas that the policies allow now, counted from what there was a period ago.
    fn limit(&mut self, now: Duration) -> u32 {
        self.changes.retain(|(at, _)| now.saturating_sub(*at) < self.rules.up_period);
        let changed: i64 = self.changes.iter().map(|(_, by)| by).sum();
        let before = u32::try_from((i64::from(self.count) - changed).max(0)).unwrap_or(u32::MAX);
        let by_number = before.saturating_add(self.rules.up_replicas);
        let by_share = (f64::from(before) * (1.0 + f64::from(self.rules.up_percent) / 100.0)).ceil() as u32;
        by_number.max(by_share).max(self.count)
    }
}

/// A metric has three decimals on its way through Kubernetes.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round()
}

#[cfg(test)]
mod tests;
