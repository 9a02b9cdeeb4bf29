//! KEDA's part: whether a workload has replicas at all.

use std::time::Duration;

use super::{Failure, Fallback, Observation, Rules};

#[derive(Debug, Clone)]
pub(super) struct Keda {
    created: Duration,
    last_active: Option<Duration>,
    /// Turns in a row in which the metric was not told.
    failures: u32,
    knows_metric: bool,
}

impl Keda {
    pub(super) fn new(now: Duration) -> Self {
        Self { created: now, last_active: None, failures: 0, knows_metric: false }
    }

    /// GetMetricSpec has been answered, so the HPA exists and has the metric.
    pub(super) fn knows_metric(&self) -> bool {
        self.knows_metric
    }

    /// What is believed of an answer; `None`: nothing.
    pub(super) fn hear(
        &mut self,
        answer: Result<Observation, Failure>,
        fallback: Option<Fallback>,
    ) -> Option<Observation> {
        let answer = match answer {
            // An answer that no client could use is an error.
            Ok(seen) if !seen.is_sound() => Err(Failure::Metrics { target: seen.target }),
            answer => answer,
        };
        match answer {
            Ok(seen) => {
                self.knows_metric = true;
                self.failures = 0;
                Some(seen)
            }
            Err(Failure::Spec) => None,
            Err(Failure::Metrics { target }) => {
                self.knows_metric = true;
                self.failures = self.failures.saturating_add(1);
                let fallback = fallback.filter(|fallback| self.failures > fallback.failure_threshold)?;
                let seen = Observation { active: true, value: f64::from(fallback.replicas) * target, target };
                seen.is_sound().then_some(seen)
            }
        }
    }

    /// How many replicas there should be. `None`: nothing is known, so they stay what they are.
    pub(super) fn poll(&mut self, now: Duration, count: u32, active: Option<bool>, rules: &Rules) -> u32 {
        match active {
            None => count,
            Some(true) => {
                self.last_active = Some(now);
                if count == 0 { rules.min.max(1) } else { count }
            }
            Some(false) if rules.min == 0 || rules.idle_at_zero => {
                let (since, pause) = match self.last_active {
                    Some(last) => (last, rules.cooldown),
                    None => (self.created, rules.initial_cooldown),
                };
                if now.saturating_sub(since) > pause { 0 } else { count }
            }
            Some(false) => count.max(rules.min),
        }
    }
}
