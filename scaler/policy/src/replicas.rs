//! What KEDA and the HPA make of a scaler's answers, in virtual time.
//!
//! In a cluster KEDA takes a workload from 0 to 1 and back to 0, and the HorizontalPodAutoscaler everything between.
//! [`Replicas`] is both, for one workload with one trigger. It holds no clock and does no I/O: whoever drives it passes
//! the time, asks the scaler when [`Replicas::due`] says so, and makes the number of workers what it returns.
//!
//! ```
//! # use std::time::Duration;
//! # use policy::replicas::{Observation, Replicas, Rules};
//! let mut replicas = Replicas::new(Rules::default(), 0, Duration::ZERO);
//! let mut now = Duration::ZERO;
//! for _ in 0..3 {
//!     now = now.max(replicas.due());
//!     // Ask GetMetricSpec, GetMetrics and IsActive, in this order; ask once more if one of them fails.
//!     let wanted = replicas.observe(now, Ok(Observation { active: true, value: 25.0, target: 10.0 }));
//!     assert!(wanted >= 1);
//! }
//! assert_eq!(replicas.count(), 3);
//! ```
//!
//! Sources: KEDA 2.20, `pkg/scaling/scale_handler.go`, `pkg/scaling/executor/scale_scaledobjects.go` and `pkg/fallback`;
//! Kubernetes 1.35, `pkg/controller/podautoscaler/horizontal.go` and `replica_calculator.go` (metric type
//! AverageValue). Left out: several triggers, and a target that was scaled by somebody else.

use std::time::Duration;

mod hpa;
mod keda;

use hpa::Hpa;
pub use hpa::{Behavior, Policy, Select, Step};
use keda::Keda;

/// What a ScaledObject and its HPA are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The fewest replicas (`minReplicaCount`).
    pub min: u32,
    /// The most replicas (`maxReplicaCount`), at least 1.
    pub max: u32,
    /// A workload that is not active has no replicas though `min` is more (`idleReplicaCount: 0`, the only number that
    /// KEDA supports, since the HPA raises any other to `min`).
    pub idle_at_zero: bool,
    /// How often KEDA asks whether there is a reason to run (`pollingInterval`).
    pub polling_interval: Duration,
    /// How long after it was last active a workload goes to 0 (`cooldownPeriod`).
    pub cooldown: Duration,
    /// How long after its creation a workload that was never active goes to 0 (`initialCooldownPeriod`).
    pub initial_cooldown: Duration,
    /// What is believed of a scaler that fails (`fallback`).
    pub fallback: Option<Fallback>,
    /// How often the HPA reckons (`--horizontal-pod-autoscaler-sync-period`).
    pub sync_interval: Duration,
    /// How the number may grow (`behavior.scaleUp`).
    pub up: Behavior,
    /// How it may shrink (`behavior.scaleDown`).
    pub down: Behavior,
}

/// What is believed of a scaler that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// After more failed turns in a row than that.
    pub failure_threshold: u32,
    /// As many replicas are reported as needed.
    pub replicas: u32,
}

impl Default for Rules {
    /// The defaults of KEDA and the HPA, but for `max`, which is 100 with KEDA.
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

impl Observation {
    /// No client could use another.
    fn is_sound(&self) -> bool {
        self.value.is_finite() && self.value >= 0.0 && self.target.is_finite() && self.target > 0.0
    }
}

/// Which of a turn's calls failed, the second time too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Failure {
    /// GetMetricSpec: the turn ends there, and `fallback` does not hear of it.
    Spec,
    /// GetMetrics or IsActive, when GetMetricSpec had answered this target.
    Metrics {
        /// The target, above 0.
        target: f64,
    },
}

/// The replicas of one workload. Times are counted from any fixed moment and never go back.
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
    /// A workload that has `count` replicas at `now`. Both loops run for the first time at once.
    pub fn new(rules: Rules, count: u32, now: Duration) -> Self {
        let (keda, hpa) = (Keda::new(now), Hpa::new(count, now));
        Self { rules, count, next_poll: now, next_sync: now, keda, hpa }
    }

    /// How many replicas there should be.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// When the scaler is to be asked next.
    pub fn due(&self) -> Duration {
        self.next_poll.min(self.next_sync)
    }

    /// Takes what the scaler answered at `now` and returns how many replicas there should be. Before [`Replicas::due`]
    /// nothing changes.
    pub fn observe(&mut self, now: Duration, answer: Result<Observation, Failure>) -> u32 {
        let polls = now >= self.next_poll;
        let syncs = now >= self.next_sync;
        if !polls && !syncs {
            return self.count;
        }
        let answer = self.keda.hear(answer, self.rules.fallback);
        if polls {
            self.next_poll = now + self.rules.polling_interval;
            self.count = self.keda.poll(now, self.count, answer.map(|seen| seen.active), &self.rules);
        }
        if syncs {
            self.next_sync = now + self.rules.sync_interval;
            // From 0 only KEDA leads.
            if self.count > 0 {
                self.count = self.hpa.sync(now, self.count, answer, &self.rules);
            }
        }
        self.count
    }

    /// Takes a message of the push stream: `true` starts the first replica at once, outside the poll. It is lost on KEDA
    /// as long as it has not heard of the metric; `false` always is.
    pub fn pushed(&mut self, now: Duration, active: bool) -> u32 {
        if active && self.keda.knows_metric() {
            self.count = self.keda.poll(now, self.count, Some(true), &self.rules);
        }
        self.count
    }
}

#[cfg(test)]
mod tests;
