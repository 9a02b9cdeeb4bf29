//! The rule by which a pool is scaled.

use std::time::Duration;

use jiff::Timestamp;

use crate::backlog::Backlog;
use crate::latency::Latency;
use crate::rate::Rate;
use crate::schedule::Schedule;

/// A rate in mode latency needs this length of history.
const RATE_HISTORY: Duration = Duration::from_secs(120);

/// In mode latency, workers that the scaler found at its start stay for this time. The keep time that the former scaler
/// had learnt is unknown.
const FOUND_AT_START: Duration = Duration::from_secs(20 * 60);

/// The rule by which a pool is scaled.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// The kind of metric, with its settings.
    pub mode: Mode,
    /// A backlog above this number of jobs starts the first worker.
    pub activation: f64,
    /// The minimum number of workers.
    pub min: u32,
    /// The maximum number of workers. `None`: no limit.
    pub max: Option<u32>,
    /// Whether the metric may ask for more workers than can receive jobs at the same time.
    pub allows_idle_consumers: bool,
    /// Minimum numbers of workers at certain times.
    pub schedule: Schedule,
    /// The HPA ignores a ratio this close to 1 (`--horizontal-pod-autoscaler-tolerance`).
    pub tolerance: f64,
}

impl Scaling {
    /// The minimum number of workers now.
    pub(crate) fn floor(&self, now: Timestamp) -> u32 {
        self.min.max(self.schedule.floor(now))
    }
}

/// The kind of metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// The metric is the backlog, in jobs.
    Backlog(Backlog),
    /// The metric is the number of workers that keeps the latency objective.
    Latency(Latency),
    /// The metric is the rate of arrivals, in jobs per second.
    Rate(Rate),
}

impl Mode {
    /// The name of the mode in a trigger.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Backlog(_) => "backlog",
            Self::Latency(_) => "latency",
            Self::Rate(_) => "rate",
        }
    }

    /// The metric per worker. It is constant, because KEDA reads it again only when the ScaledObject changes.
    pub fn target(&self) -> f64 {
        match self {
            Self::Backlog(backlog) => backlog.per_worker,
            Self::Latency(_) => 1.0,
            Self::Rate(rate) => rate.per_worker,
        }
    }

    /// The length of history that is required before the number of workers may fall.
    pub fn required_history(&self) -> Duration {
        match self {
            Self::Backlog(_) => Duration::ZERO,
            Self::Latency(_) => RATE_HISTORY,
            Self::Rate(rate) => rate.window,
        }
    }

    /// How far back the mode looks for reasons to have the present workers.
    pub(crate) fn look_back(&self) -> Duration {
        match self {
            Self::Latency(_) => FOUND_AT_START,
            Self::Backlog(_) | Self::Rate(_) => self.required_history(),
        }
    }
}
