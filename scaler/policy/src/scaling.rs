//! The rule by which a pool is scaled.

use std::time::Duration;

use jiff::Timestamp;

use crate::backlog::Backlog;
use crate::latency::Latency;
use crate::rate::Rate;
use crate::schedule::Schedule;

/// The rule by which a pool is scaled.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// What is counted.
    pub mode: Mode,
    /// A backlog above this is a reason to start the first worker.
    pub activation: f64,
    /// The fewest workers.
    pub min: u32,
    /// The most workers; `None`: any number.
    pub max: Option<u32>,
    /// More workers than can find something to take are asked for all the same.
    pub allows_idle_consumers: bool,
    /// The fewest workers at certain times.
    pub schedule: Schedule,
    /// A ratio this near to 1 changes nothing with the HPA (`--horizontal-pod-autoscaler-tolerance`).
    pub tolerance: f64,
}

impl Scaling {
    /// The fewest workers now.
    pub(crate) fn floor(&self, now: Timestamp) -> u32 {
        self.min.max(self.schedule.floor(now))
    }
}

/// What is counted.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// Jobs that are there.
    Backlog(Backlog),
    /// Workers that keep jobs within an objective.
    Latency(Latency),
    /// Jobs that arrive.
    Rate(Rate),
}

impl Mode {
    /// Its name in a trigger.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Backlog(_) => "backlog",
            Self::Latency(_) => "latency",
            Self::Rate(_) => "rate",
        }
    }

    /// The metric for each worker: it never changes, since KEDA asks again only when a ScaledObject does.
    pub fn target(&self) -> f64 {
        match self {
            Self::Backlog(backlog) => backlog.per_worker,
            Self::Latency(_) => 1.0,
            Self::Rate(rate) => rate.per_worker,
        }
    }

    /// For so long a pool must have been seen before its past can tell that fewer would do.
    pub fn needs_history_of(&self) -> Duration {
        match self {
            Self::Backlog(_) => Duration::ZERO,
            Self::Latency(latency) => latency.stable_window.max(latency.scale_down_delay),
            Self::Rate(rate) => rate.window,
        }
    }

    /// For so long it remembers why there are as many workers as there are.
    pub(crate) fn remembers(&self) -> Duration {
        match self {
            Self::Latency(latency) => latency.look_back,
            Self::Backlog(_) | Self::Rate(_) => self.needs_history_of(),
        }
    }
}
