//! What a ScaledObject and its HPA are told, under the names that they have in Kubernetes.
//!
//! Sources: KEDA 2.20, `ScaledObjectSpec`; Kubernetes 1.35, `HorizontalPodAutoscalerBehavior` in `autoscaling/v2`,
//! whose defaults and bounds hold here too.

use std::time::Duration;

use policy::replicas::{self, Rules, Select, Step};
use schemars::JsonSchema;
use serde::Deserialize;
use service::{Faults, Period};

/// KEDA's part of a ScaledObject, and the HPA's. Numbers without a unit are seconds or replicas, as in Kubernetes.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ScaledObject {
    /// The fewest replicas.
    pub min_replica_count: u32,
    /// The most replicas.
    #[schemars(range(min = 1))]
    pub max_replica_count: u32,
    /// The replicas of a workload that is not active, where `minReplicaCount` is more: 0, or none of its own.
    #[schemars(range(max = 0))]
    pub idle_replica_count: Option<u32>,
    /// How often KEDA asks whether there is a reason to run.
    #[schemars(range(min = 1))]
    pub polling_interval: u32,
    /// How long after it was last active a workload goes to 0.
    pub cooldown_period: u32,
    /// How long after its creation a workload that was never active goes to 0.
    pub initial_cooldown_period: u32,
    /// What is believed of a scaler that fails. A simulated one does not.
    pub fallback: Option<Fallback>,
    /// How the HPA may change the number (`advanced.horizontalPodAutoscalerConfig.behavior` in a ScaledObject).
    pub behavior: Behavior,
    /// How often the HPA reckons (the controller manager's flag `--horizontal-pod-autoscaler-sync-period`).
    pub horizontal_pod_autoscaler_sync_period: Period,
}

/// What is believed of a scaler that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fallback {
    /// After more failed turns in a row than that.
    pub failure_threshold: u32,
    /// As many replicas are reported as needed.
    pub replicas: u32,
}

/// How the HPA may change the number.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Behavior {
    /// Upwards: 4 pods or 100 % in 15 s, whichever is more, unless given.
    pub scale_up: ScalingRules,
    /// Downwards: 100 % in 15 s, after a window of 300 s, unless given.
    pub scale_down: ScalingRules,
}

/// How the HPA may change the number in one direction.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ScalingRules {
    /// Of what was wanted in this time, what changes least is followed.
    #[schemars(range(max = 3600))]
    pub stabilization_window_seconds: Option<u32>,
    /// Which of the policies counts; `Max` unless given.
    pub select_policy: Option<SelectPolicy>,
    /// How much may change.
    #[schemars(length(min = 1))]
    pub policies: Option<Vec<ScalingPolicy>>,
    /// A ratio this near to 1 changes nothing; 0.1 unless given.
    #[schemars(range(min = 0.0))]
    pub tolerance: Option<f64>,
}

/// Which of several policies counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SelectPolicy {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest.
    Min,
    /// None: the number does not change in this direction.
    Disabled,
}

/// How much may change within a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// What `value` counts.
    pub r#type: PolicyType,
    /// How much.
    #[schemars(range(min = 1))]
    pub value: u32,
    /// Within how long.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: u32,
}

/// What a policy's value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PolicyType {
    /// Replicas.
    Pods,
    /// Percent of what there was when the period began.
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
            behavior: Behavior::default(),
            horizontal_pod_autoscaler_sync_period: Period::seconds(15),
        }
    }
}

impl ScaledObject {
    /// Adds what is wrong with this, which stands under `key`.
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

    /// The same, for [`replicas::Replicas`].
    pub fn rules(&self) -> Rules {
        let policy = |step: Step| replicas::Policy { step, period: Duration::from_secs(15) };
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
            up: self.behavior.scale_up.behavior(0, vec![policy(Step::Pods(4)), policy(Step::Percent(100))]),
            down: self.behavior.scale_down.behavior(300, vec![policy(Step::Percent(100))]),
        }
    }
}

impl ScalingRules {
    /// The same, for [`replicas::Replicas`], with Kubernetes' defaults of this direction where nothing is given.
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
