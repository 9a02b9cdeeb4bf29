//! KEDA's part: whether a workload has any replicas.

use std::time::Duration;

use super::{CallFailure, Fallback, Observation, Rules};

#[derive(Debug, Clone)]
pub(super) struct Keda {
    created: Duration,
    last_active: Option<Duration>,
    /// Failed calls of GetMetrics or IsActive in a row.
    failures: u32,
    has_metric: bool,
}

impl Keda {
    pub(super) fn new(now: Duration) -> Self {
        Self { created: now, last_active: None, failures: 0, has_metric: false }
    }

    /// Whether GetMetricSpec was answered, so that the HPA exists and has the metric.
    pub(super) fn has_metric(&self) -> bool {
        self.has_metric
    }

    /// The observation that KEDA uses for an answer. `None`: KEDA has no observation. `queries` is the number of calls
    /// that got this answer: the poll and the HPA each query the metric, and each failure counts (`IncrementFailure`).
    pub(super) fn accept(
        &mut self,
        answer: Result<Observation, CallFailure>,
        queries: u32,
        fallback: Option<Fallback>,
    ) -> Option<Observation> {
        let answer = match answer {
            // An answer that a client cannot use is an error.
            Ok(answer) if !answer.is_valid() => Err(CallFailure::Metrics { target: answer.target }),
            answer => answer,
        };
        match answer {
            Ok(answer) => {
                self.has_metric = true;
                self.failures = 0;
                Some(answer)
            }
            Err(CallFailure::Spec) => None,
            Err(CallFailure::Metrics { target }) => {
                self.has_metric = true;
                self.failures = self.failures.saturating_add(queries);
                let fallback = fallback.filter(|fallback| self.failures > fallback.failure_threshold)?;
                let substitute = Observation { active: true, value: f64::from(fallback.replicas) * target, target };
                substitute.is_valid().then_some(substitute)
            }
        }
    }

    /// The wanted number of replicas. Without an observation (`None`) the number stays as it is, unless the fallback has
    /// 0 replicas: then KEDA treats the error like an inactive workload (`scale_scaledobjects.go`, the first case of
    /// `isError` excludes it).
    pub(super) fn poll(&mut self, now: Duration, count: u32, active: Option<bool>, rules: &Rules) -> u32 {
        let falls_back_to_zero = rules.fallback.is_some_and(|fallback| fallback.replicas == 0);
        match active.or(falls_back_to_zero.then_some(false)) {
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
