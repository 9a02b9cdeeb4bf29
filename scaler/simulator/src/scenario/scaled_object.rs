//! The settings of a ScaledObject and its HPA, under their names in Kubernetes.
//!
//! Sources: KEDA 2.20, `ScaledObjectSpec`; Kubernetes 1.36, `HorizontalPodAutoscalerBehavior` in `autoscaling/v2`,
//! with the same defaults and limits.

use std::time::Duration;

use policy::replicas::{self, Rules, Select, Step};
use schemars::JsonSchema;
use serde::Deserialize;
use service::{Faults, Period};

/// The settings of KEDA and the HPA in a ScaledObject. Numbers without a unit are seconds or replicas, as in
/// Kubernetes.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ScaledObject {
    /// The minimum number of replicas.
    pub min_replica_count: u32,
    /// The maximum number of replicas.
    #[schemars(range(min = 1))]
    pub max_replica_count: u32,
    /// The replicas of an inactive workload, below `minReplicaCount`. Only 0 is allowed.
    #[schemars(range(max = 0))]
    pub idle_replica_count: Option<u32>,
    /// The interval at which KEDA calls the scaler.
    #[schemars(range(min = 1))]
    pub polling_interval: u32,
    /// The time from the last activity of a workload until KEDA scales it to 0.
    pub cooldown_period: u32,
    /// The same from its creation, for a workload that was never active.
    pub initial_cooldown_period: u32,
    /// The substitute for the answers of a failing scaler. A simulated scaler never fails.
    pub fallback: Option<Fallback>,
    /// How the HPA may change the number of replicas (`advanced.horizontalPodAutoscalerConfig.behavior` in a
    /// ScaledObject). Without it, the HPA at most doubles the number in a turn, or raises it to 4.
    pub behavior: Option<Behavior>,
    /// The interval at which the HPA computes the number (the controller manager's flag
    /// `--horizontal-pod-autoscaler-sync-period`).
    pub horizontal_pod_autoscaler_sync_period: Period,
}

/// The substitute for the answers of a failing scaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fallback {
    /// The fallback applies after more than this number of failed turns in a row.
    pub failure_threshold: u32,
    /// The number of replicas that KEDA then reports as needed.
    pub replicas: u32,
}

/// How the HPA may change the number of replicas.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Behavior {
    /// The rules for a rise. Default: 4 pods or 100 % in 15 s, whichever is more.
    pub scale_up: ScalingRules,
    /// The rules for a fall. Default: 100 % in 15 s, after a window of 300 s.
    pub scale_down: ScalingRules,
}

/// How the HPA may change the number of replicas in one direction.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ScalingRules {
    /// Of the recommendations in this window, the one with the smallest change is used.
    #[schemars(range(max = 3600))]
    pub stabilization_window_seconds: Option<u32>,
    /// Which of the policies applies. Default: `Max`.
    pub select_policy: Option<SelectPolicy>,
    /// The allowed changes.
    #[schemars(length(min = 1))]
    pub policies: Option<Vec<ScalingPolicy>>,
    /// The HPA ignores a ratio this close to 1. Default: 0.1.
    #[schemars(range(min = 0.0))]
    pub tolerance: Option<f64>,
}

/// Which of several policies applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SelectPolicy {
    /// The policy that allows the largest change.
    Max,
    /// The policy that allows the smallest change.
    Min,
    /// No policy: the number does not change in this direction.
    Disabled,
}

/// The change that is allowed within a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// The unit of `value`.
    pub r#type: PolicyType,
    /// The size of the change.
    #[schemars(range(min = 1))]
    pub value: u32,
    /// The period, in seconds.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: u32,
}

/// The unit of a policy's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PolicyType {
    /// Replicas.
    Pods,
    /// Percent of the replicas at the beginning of the period.
    Percent,
}

impl Default for ScaledObject {
    fn default() -> Self {
        Self {
            min_replica_count: 0,
            max_replica_count: 100,
            idle_replica_count: None,
            polling_interval: 30,
            cooldown_period: 300,
            initial_cooldown_period: 0,
            fallback: None,
            behavior: None,
            horizontal_pod_autoscaler_sync_period: Period::seconds(15),
        }
    }
}

impl ScaledObject {
    /// Adds the faults of these settings, which are the value of `key`.
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        let (min, max) = (self.min_replica_count, self.max_replica_count);
        if min > max {
            faults.refuse(
                format_args!("{key}.minReplicaCount"),
                min,
                format_args!("is more than maxReplicaCount, {max}"),
            );
        }
        if let Some(idle) = self.idle_replica_count
            && idle >= min
        {
            faults.refuse(
                format_args!("{key}.idleReplicaCount"),
                idle,
                format_args!("is not less than minReplicaCount, {min}"),
            );
        }
        let sync_period = self.horizontal_pod_autoscaler_sync_period;
        if !(Period::seconds(1)..=Period::seconds(3600)).contains(&sync_period) {
            let key = format!("{key}.horizontalPodAutoscalerSyncPeriod");
            faults.refuse(key, sync_period, "is not at least 1s and at most 1h");
        }
    }

    /// The same settings, for [`replicas::Replicas`].
    pub fn rules(&self) -> Rules {
        let policy = |step: Step| replicas::Policy { step, period: Duration::from_secs(15) };
        let behavior = self.behavior.clone().unwrap_or_default();
        Rules {
            min: self.min_replica_count,
            max: self.max_replica_count,
            idle_at_zero: self.idle_replica_count == Some(0),
            polling_interval: seconds(self.polling_interval),
            cooldown: seconds(self.cooldown_period),
            initial_cooldown: seconds(self.initial_cooldown_period),
            fallback: self.fallback.map(|fallback| replicas::Fallback {
                failure_threshold: fallback.failure_threshold,
                replicas: fallback.replicas,
            }),
            sync_interval: self.horizontal_pod_autoscaler_sync_period.get(),
            has_behavior: self.behavior.is_some(),
            up: behavior.scale_up.behavior(0, vec![policy(Step::Pods(4)), policy(Step::Percent(100))]),
            down: behavior.scale_down.behavior(300, vec![policy(Step::Percent(100))]),
        }
    }
}

impl ScalingRules {
    /// The same rules, for [`replicas::Replicas`]. Missing keys have the given defaults of Kubernetes for this
    /// direction.
    fn behavior(&self, window_seconds: u32, policies: Vec<replicas::Policy>) -> replicas::Behavior {
        let given = |policy: &ScalingPolicy| replicas::Policy {
            step: match policy.r#type {
                PolicyType::Pods => Step::Pods(policy.value),
                PolicyType::Percent => Step::Percent(policy.value),
            },
            period: seconds(policy.period_seconds),
        };
        replicas::Behavior {
            tolerance: self.tolerance.unwrap_or(0.1),
            stabilization_window: seconds(self.stabilization_window_seconds.unwrap_or(window_seconds)),
            select: match self.select_policy {
                None | Some(SelectPolicy::Max) => Select::Max,
                Some(SelectPolicy::Min) => Select::Min,
                Some(SelectPolicy::Disabled) => Select::Disabled,
            },
            policies: self.policies.as_ref().map_or(policies, |policies| policies.iter().map(given).collect()),
        }
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
