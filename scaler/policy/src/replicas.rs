//! The arithmetic of KEDA and the HPA: from a scaler's answers to a number of replicas.
//!
//! In a cluster KEDA scales a workload from 0 to 1 and back to 0, and the HorizontalPodAutoscaler scales it between 1
//! and the maximum. [`Replicas`] does both, for one workload with one trigger. It has no clock and no I/O. The caller
//! passes the time, calls the scaler at the time [`Replicas::due`], and starts or stops workers until their number is
//! the returned one.
//!
//! ```
//! # use std::time::Duration;
//! # use policy::replicas::{Observation, Replicas, Rules};
//! let mut replicas = Replicas::new(Rules::default(), 0, Duration::ZERO);
//! let mut now = Duration::ZERO;
//! for _ in 0..3 {
//!     now = now.max(replicas.due());
//!     // Call GetMetricSpec, GetMetrics and IsActive, in this order. Call them once more if one of them fails.
//!     let wanted = replicas.observe(now, Ok(Observation { active: true, value: 25.0, target: 10.0 }));
//!     assert!(wanted >= 1);
//! }
//! assert_eq!(replicas.count(), 3);
//! ```
//!
//! Sources: KEDA 2.21, `pkg/scaling/scale_handler.go`, `pkg/scaling/executor/scale_scaledobjects.go` and
//! `pkg/fallback`; Kubernetes 1.36, `pkg/controller/podautoscaler/horizontal.go` and `replica_calculator.go` (metric
//! type AverageValue). Not covered: several triggers,
//! `fallback.behavior`, `useCachedMetrics`, and a workload that another program scales too.

use std::time::Duration;

mod hpa;
mod keda;

use hpa::Hpa;
pub use hpa::{Behavior, Policy, Select, Step};
use keda::Keda;

/// The settings of a ScaledObject and its HPA.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The minimum number of replicas (`minReplicaCount`).
    pub min: u32,
    /// The maximum number of replicas (`maxReplicaCount`), at least 1.
    pub max: u32,
    /// Whether an inactive workload has no replicas although `min` is above 0 (`idleReplicaCount: 0`). KEDA supports no
    /// other number, because the HPA raises it to `min`.
    pub idle_at_zero: bool,
    /// The interval at which KEDA calls the scaler (`pollingInterval`).
    pub polling_interval: Duration,
    /// The time from the last activity of a workload until KEDA scales it to 0 (`cooldownPeriod`).
    pub cooldown: Duration,
    /// The same from its creation, for a workload that was never active (`initialCooldownPeriod`).
    pub initial_cooldown: Duration,
    /// The substitute for the answers of a failing scaler (`fallback`).
    pub fallback: Option<Fallback>,
    /// The interval at which the HPA computes the number (`--horizontal-pod-autoscaler-sync-period`).
    pub sync_interval: Duration,
    /// Whether the HPA has a `behavior`. KEDA passes none on if the ScaledObject has none. Then the HPA at most doubles
    /// the number in a turn, or raises it to 4, and uses only the tolerances and the window for falls of the rules below.
    pub has_behavior: bool,
    /// How the number may rise (`behavior.scaleUp`).
    pub up: Behavior,
    /// How the number may fall (`behavior.scaleDown`).
    pub down: Behavior,
}

/// The substitute for the answers of a failing scaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// The fallback applies after more than this number of failed turns in a row.
    pub failure_threshold: u32,
    /// The number of replicas that KEDA then reports as needed.
    pub replicas: u32,
}

impl Default for Rules {
    /// The defaults of KEDA and the HPA, except that `max` is 10. It is 100 in KEDA, but GPUs are expensive.
    fn default() -> Self {
        let policy = |step| Policy { step, period: Duration::from_secs(15) };
        Self {
            min: 0,
            max: 10,
            idle_at_zero: false,
            polling_interval: Duration::from_secs(30),
            cooldown: Duration::from_secs(300),
            initial_cooldown: Duration::ZERO,
            fallback: None,
            sync_interval: Duration::from_secs(15),
            has_behavior: false,
            up: Behavior {
                tolerance: 0.1,
                stabilization_window: Duration::ZERO,
                select: Select::Max,
                policies: vec![policy(Step::Pods(4)), policy(Step::Percent(100))],
            },
            down: Behavior {
                tolerance: 0.1,
                stabilization_window: Duration::from_secs(300),
                select: Select::Max,
                policies: vec![policy(Step::Percent(100))],
            },
        }
    }
}

/// The answers of a scaler in one turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// The answer to IsActive.
    pub active: bool,
    /// The answer to GetMetrics, at least 0.
    pub value: f64,
    /// The target in the answer to GetMetricSpec, above 0.
    pub target: f64,
}

impl Observation {
    /// Whether KEDA and the HPA can use the answers.
    fn is_valid(&self) -> bool {
        self.value.is_finite() && self.value >= 0.0 && self.target.is_finite() && self.target > 0.0
    }
}

/// The call that failed in a turn. KEDA repeats a failed call once, and this call failed both times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CallFailure {
    /// GetMetricSpec. The turn ends there and does not count for `fallback`.
    Spec,
    /// GetMetrics or IsActive, after GetMetricSpec had returned this target.
    Metrics {
        /// The target, above 0.
        target: f64,
    },
}

/// The number of replicas of one workload. Times are counted from any fixed moment and must not decrease.
#[derive(Debug, Clone)]
pub struct Replicas {
    rules: Rules,
    count: u32,
    next_poll: Duration,
    next_sync: Duration,
    keda: Keda,
    hpa: Hpa,
}

impl Replicas {
    /// A workload that has `count` replicas at `now`. The first turn of both loops is due at once.
    pub fn new(rules: Rules, count: u32, now: Duration) -> Self {
        Self::with_phases(rules, count, now, Duration::ZERO, Duration::ZERO)
    }

    /// The same, but the first turns of KEDA and the HPA are due after `poll` and `sync`. In a cluster both loops run
    /// independently, and none starts with the workload.
    pub fn with_phases(rules: Rules, count: u32, now: Duration, poll: Duration, sync: Duration) -> Self {
        let (keda, hpa) = (Keda::new(now), Hpa::new(count, now));
        Self { rules, count, next_poll: now + poll, next_sync: now + sync, keda, hpa }
    }

    /// The wanted number of replicas.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The time of the next turn, at which the caller must call the scaler.
    pub fn due(&self) -> Duration {
        self.next_poll.min(self.next_sync)
    }

    /// Processes the scaler's answers of a turn at `now` and returns the wanted number of replicas. Before
    /// [`Replicas::due`] the call has no effect.
    pub fn observe(&mut self, now: Duration, answer: Result<Observation, CallFailure>) -> u32 {
        let polls = now >= self.next_poll;
        let syncs = now >= self.next_sync;
        if !polls && !syncs {
            return self.count;
        }
        // The HPA does not query the metric of a workload without replicas.
        let queries = u32::from(polls) + u32::from(syncs && self.count > 0);
        let answer = self.keda.accept(answer, queries, self.rules.fallback);
        if polls {
            self.next_poll = now + self.rules.polling_interval;
            self.count = self.keda.poll(now, self.count, answer.map(|answer| answer.active), &self.rules);
        }
        if syncs {
            self.next_sync = now + self.rules.sync_interval;
            // Only KEDA scales from 0.
            if self.count > 0 {
                self.count = self.hpa.sync(now, self.count, answer, &self.rules);
            }
        }
        self.count
    }

    /// Processes a message of the push stream. `true` starts the first replica at once, outside the poll. KEDA drops it
    /// while it does not know the metric yet, and it always ignores `false`.
    pub fn pushed(&mut self, now: Duration, active: bool) -> u32 {
        if active && self.keda.has_metric() {
            self.count = self.keda.poll(now, self.count, Some(true), &self.rules);
        }
        self.count
    }
}

#[cfg(test)]
mod tests;
