//! How a worker of a pool works.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{Faults, Period};

/// How a worker takes jobs, batches them and gives up on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSettings {
    /// The most items in one batch. The model's own limit also holds.
    pub max_batch_items: Option<NonZeroUsize>,
    /// How many instances of the model this process runs, each on a thread of its own.
    pub instances: NonZeroUsize,
    /// How many threads decode and preprocess inputs. Unset: one per core.
    pub prepare_threads: Option<NonZeroUsize>,
    /// How long a claim holds without being renewed. It is renewed every third of this.
    pub lease: Period,
    /// The wait before the second attempt; it doubles with every further one.
    pub retry_initial: Period,
    /// The longest wait between two attempts.
    pub retry_max: Period,
    /// How long a worker that was told to stop may take to finish its batch. A spot node grants 15 s.
    pub drain_timeout: Period,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            max_batch_items: None,
            instances: NonZeroUsize::MIN,
            prepare_threads: None,
            lease: Period::seconds(30),
            retry_initial: Period::seconds(1),
            retry_max: Period::seconds(60),
            drain_timeout: Period::seconds(9),
        }
    }
}

impl WorkerSettings {
    /// Adds what is wrong with these settings, which stand under `key`.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        // A lease is renewed every third of it, and a round trip must fit in between.
        if self.lease < Period::seconds(1) {
            faults.refuse(format_args!("{key}.lease"), self.lease, "is not at least 1s");
        }
        if self.retry_max < self.retry_initial {
            let rule = format!("is less than retry_initial, {}", self.retry_initial);
            faults.refuse(format_args!("{key}.retry_max"), self.retry_max, rule);
        }
    }

    /// The wait after failed attempt number `attempt` (from 1) of a job: doubling from the first wait up to the longest,
    /// less up to a quarter that depends on the job, so that jobs that failed together do not all come back at once.
    pub(crate) fn retry_after(&self, attempt: u32, id: &queue::JobId) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let wait = self.retry_initial.saturating_mul(1_u32 << doublings).min(self.retry_max.get());
        // FNV-1a: spreads ids evenly and stays the same from one run to the next.
        let hash =
            id.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        wait - wait.mul_f64(f64::from(hash) / f64::from(u32::MAX) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_between_attempts_double_up_to_the_longest_and_differ_between_jobs() {
        let settings = WorkerSettings::default();
        let [a, b] = ["a", "b"].map(|id| id.parse().unwrap());
        for (attempt, longest) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (4_000_000_000, 60)] {
            let wait = settings.retry_after(attempt, &a);
            let longest = Duration::from_secs(longest);
            assert!(wait <= longest && wait >= longest.mul_f64(0.75), "attempt {attempt}: {wait:?}");
        }
        assert_ne!(settings.retry_after(1, &a), settings.retry_after(1, &b));
    }
}
