//! The conditions under which a pool runs: what a cluster does to workers, and what their measurements show.

use std::time::Duration;

use queue::Class;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp, LogNormal};

/// The conditions of a run. The default is an ideal cluster, whose workers know their batch times from the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Conditions {
    /// The time from the request for a worker until its process begins to load. The roster does not contain the worker
    /// before that.
    pub provisioning: Provisioning,
    /// Whether each worker estimates its batch times from its own batches, as real workers do.
    pub learns: bool,
    /// The share of workers that load and never become ready.
    pub never_ready: f64,
    /// The mean time until a ready worker crashes. Its jobs are delivered again, and its process loads again. `None`:
    /// workers do not crash.
    pub crashes_after: Option<Duration>,
    /// The seed for the times of workers, the phases of the loops of KEDA, the HPA and the sampler, and the ids of pods.
    pub seed: u64,
}

/// A random time with a log-normal distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Provisioning {
    /// The median.
    pub median: Duration,
    /// The ratio of the 84th percentile to the median, at least 1. With 1 every time is the median.
    pub spread: f64,
}

impl Default for Provisioning {
    fn default() -> Self {
        Self { median: Duration::ZERO, spread: 1.0 }
    }
}

/// The latency objective of each class, in the order of [`Class::ALL`]. `None`: the jobs have no objective.
pub type Objectives = [Option<Duration>; 3];

/// One objective for all classes.
pub fn for_all_classes(objective: Duration) -> Objectives {
    [Some(objective); Class::ALL.len()]
}

/// The fate of one worker. The same seed and number give the same fate.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    pub(crate) provisioning: Duration,
    pub(crate) becomes_ready: bool,
    /// A random number that orders pods of nearly the same age, like the uid of a pod.
    pub(crate) uid: u64,
    random: StdRng,
}

impl Conditions {
    /// Random numbers for a purpose of their own.
    pub(crate) fn random(&self, purpose: u64) -> StdRng {
        // Two seeds of neighbouring numbers must not give related sequences for neighbouring workers.
        StdRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose)
    }

    /// A moment within an interval, at which a loop has its first turn.
    pub(crate) fn phase(&self, purpose: u64, interval: Duration) -> Duration {
        interval.mul_f64(self.random(purpose << 32).random::<f64>())
    }

    pub(crate) fn fate(&self, number: u32) -> Fate {
        let mut random = self.random(u64::from(number));
        let Provisioning { median, spread } = self.provisioning;
        // An invalid spread is that of no randomness.
        let factor = LogNormal::new(0.0, spread.max(1.0).ln()).map_or(1.0, |factors| factors.sample(&mut random));
        let becomes_ready = random.random::<f64>() >= self.never_ready;
        // The process starts only when its node and its image are there. No cluster needs more than ten medians.
        Fate { provisioning: median.mul_f64(factor.min(10.0)), becomes_ready, uid: random.random(), random }
    }
}

impl Fate {
    /// The time from readiness until the next crash.
    pub(crate) fn next_crash(&mut self, mean: Duration) -> Duration {
        let seconds = Exp::new(1.0 / mean.as_secs_f64()).map_or(f64::INFINITY, |times| times.sample(&mut self.random));
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}
