//! The HorizontalPodAutoscaler's part: the number of replicas of a workload that has at least one.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Observation, Rules};

/// How the number may change in one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Behavior {
    /// The HPA ignores a ratio this close to 1.
    pub tolerance: f64,
    /// Of the recommendations in this window, the one with the smallest change is used (`stabilizationWindowSeconds`).
    pub stabilization_window: Duration,
    /// Which of the policies applies.
    pub select: Select,
    /// How fast the number may change.
    pub policies: Vec<Policy>,
}

/// Which of several policies applies (`selectPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The policy that allows the largest change.
    Max,
    /// The policy that allows the smallest change.
    Min,
    /// No policy: the number does not change in this direction.
    Disabled,
}

/// The change that is allowed within a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The size of the change.
    pub step: Step,
    /// The period (`periodSeconds`).
    pub period: Duration,
}

/// The size of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A number of replicas.
    Pods(u32),
    /// A percentage of the replicas at the beginning of the period.
    Percent(u32),
}

/// Without a behavior, one turn may multiply the number by this factor (`scaleUpLimitFactor`).
const LEGACY_FACTOR: u32 = 2;

/// Without a behavior, one turn may raise the number to this one (`scaleUpLimitMinimum`).
const LEGACY_FLOOR: u32 = 4;

#[derive(Debug, Clone)]
pub(super) struct Hpa {
    /// Recommended numbers, with their times.
    recommendations: VecDeque<(Duration, u32)>,
    /// Changes of the number, with their times.
    changes: VecDeque<(Duration, i64)>,
}

impl Hpa {
    pub(super) fn new(count: u32, now: Duration) -> Self {
        let recommendations = if count > 0 { VecDeque::from([(now, count)]) } else { VecDeque::new() };
        Self { recommendations, changes: VecDeque::new() }
    }

    /// The wanted number of replicas. Without an answer only the limits apply.
    pub(super) fn sync(&mut self, now: Duration, count: u32, answer: Option<Observation>, rules: &Rules) -> u32 {
        let least = rules.min.max(1);
        let most = rules.max.max(least);
        let next = if count > most || count < least {
            count.clamp(least, most)
        } else {
            let Some(answer) = answer else { return count };
            let wanted = wanted(count, answer, rules);
            let steady = self.stabilized(now, count, wanted, rules);
            if rules.has_behavior {
                self.limited(now, count, steady.clamp(least, most), rules)
            } else {
                // `convertDesiredReplicasWithRules`.
                steady.clamp(least, most.min(LEGACY_FLOOR.max(count.saturating_mul(LEGACY_FACTOR))).max(least))
            }
        };
        if next != count {
            self.changes.push_back((now, i64::from(next) - i64::from(count)));
        }
        next
    }

    /// The recommendation after both windows: up to the lowest recommendation, down to the highest one.
    fn stabilized(&mut self, now: Duration, count: u32, wanted: u32, rules: &Rules) -> u32 {
        let longest = rules.up.stabilization_window.max(rules.down.stabilization_window);
        self.recommendations.retain(|(at, _)| now.saturating_sub(*at) < longest);
        let within = |window: Duration| {
            let recent = self.recommendations.iter().filter(move |(at, _)| now.saturating_sub(*at) < window);
            recent.map(|(_, wanted)| *wanted).chain([wanted])
        };
        let lowest = within(rules.up.stabilization_window).min().unwrap_or(wanted);
        let highest = within(rules.down.stabilization_window).max().unwrap_or(wanted);
        self.recommendations.push_back((now, wanted));
        // Without a behavior, the window for falls also keeps the number rising to its largest recommendation
        // (`stabilizeRecommendation`).
        if rules.has_behavior { count.max(lowest).min(highest) } else { highest }
    }

    /// The number closest to `wanted` that the policies allow now.
    fn limited(&mut self, now: Duration, count: u32, wanted: u32, rules: &Rules) -> u32 {
        let periods = [&rules.up, &rules.down].into_iter().flat_map(|behavior| &behavior.policies);
        let longest = periods.map(|policy| policy.period).max().unwrap_or_default();
        self.changes.retain(|(at, _)| now.saturating_sub(*at) < longest);
        if wanted > count {
            let reached = self.reached(now, count, &rules.up, up);
            let furthest = match rules.up.select {
                Select::Max => reached.max(),
                Select::Min => reached.min(),
                Select::Disabled => None,
            };
            wanted.min(furthest.unwrap_or(count).max(count))
        } else {
            let reached = self.reached(now, count, &rules.down, down);
            let furthest = match rules.down.select {
                Select::Max => reached.min(),
                Select::Min => reached.max(),
                Select::Disabled => None,
            };
            wanted.max(furthest.unwrap_or(count).min(count))
        }
    }

    /// The limit of each policy of one direction. `step` applies one step to a number.
    fn reached(
        &self,
        now: Duration,
        count: u32,
        behavior: &Behavior,
        step: fn(u32, Step) -> u32,
    ) -> impl Iterator<Item = u32> {
        behavior.policies.iter().map(move |policy| {
            let recent = self.changes.iter().filter(|(at, _)| now.saturating_sub(*at) < policy.period);
            let changed: i64 = recent.map(|(_, by)| by).sum();
            let before = u32::try_from((i64::from(count) - changed).max(0)).unwrap_or(u32::MAX);
            step(before, policy.step)
        })
    }
}

/// The number of replicas that follows from the metric.
fn wanted(count: u32, answer: Observation, rules: &Rules) -> u32 {
    let (sum, target) = (thousandths(answer.value), thousandths(answer.target).max(1.0));
    let ratio = sum / (target * f64::from(count));
    let is_near = (1.0 - rules.down.tolerance..=1.0 + rules.up.tolerance).contains(&ratio);
    if is_near { count } else { (sum / target).ceil() as u32 }
}

fn up(before: u32, step: Step) -> u32 {
    match step {
        Step::Pods(pods) => before.saturating_add(pods),
        Step::Percent(percent) => (f64::from(before) * (1.0 + f64::from(percent) / 100.0)).ceil() as u32,
    }
}

fn down(before: u32, step: Step) -> u32 {
    match step {
        Step::Pods(pods) => before.saturating_sub(pods),
        // The controller truncates the remaining number, so the step is larger than the percentage.
        Step::Percent(percent) => (f64::from(before) * (1.0 - f64::from(percent) / 100.0)).max(0.0) as u32,
    }
}

/// Kubernetes transfers a metric with three decimals.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round()
}
