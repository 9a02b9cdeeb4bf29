//! The settings of a pool's workers.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{ByteSize, Faults, Period};

use crate::job::memory;

/// How a worker takes jobs, batches them and retries them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSettings {
    /// The most items in one batch. The limit of the model also applies.
    pub max_batch_items: Option<NonZeroUsize>,
    /// The number of model instances in this process. Each has its own thread.
    pub instances: NonZeroUsize,
    /// The number of threads that decode and preprocess inputs. Unless given, one per core.
    pub prepare_threads: Option<NonZeroUsize>,
    /// The largest input that is read. A job with a larger one fails as `bad_input`.
    pub max_input: ByteSize,
    /// The most memory for inputs and outputs of all jobs that this worker holds: a quarter for inputs from the blob
    /// store, a half for preparing inputs and for prepared ones, a quarter for messages and outputs. An input that needs
    /// more than a whole part fails. Unless given, half of the memory that the process may use (the limit of its cgroup,
    /// or else the memory of the machine). Set it where several workers share a machine.
    pub input_memory: Option<ByteSize>,
    /// The time after which a lease expires unless it is renewed. It is renewed each second, and at least three times in
    /// this time.
    pub lease: Period,
    /// The wait before the second attempt. It doubles with every further attempt.
    pub retry_initial: Period,
    /// The longest wait between two attempts.
    pub retry_max: Period,
    /// The longest time from the stop signal to the end of the running batch. A spot node gives 15 s.
    pub drain_timeout: Period,
    /// The longest time of one forward pass, of loading, of the warm-up, and of preparing one input. Beyond it the worker
    /// exits with code 70, and other workers run its jobs.
    pub batch_timeout: Period,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            max_batch_items: None,
            instances: NonZeroUsize::MIN,
            prepare_threads: None,
            max_input: ByteSize::mib(256),
            input_memory: None,
            lease: Period::seconds(30),
            retry_initial: Period::seconds(1),
            retry_max: Period::seconds(60),
            drain_timeout: Period::seconds(9),
            batch_timeout: Period::seconds(600),
        }
    }
}

impl WorkerSettings {
    /// Adds the faults of these settings, which are under `key` in the configuration.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        // A round trip must fit into a third of the lease, when it is renewed.
        if self.lease < Period::seconds(1) {
            faults.refuse(format_args!("{key}.lease"), self.lease, "is not at least 1s");
        }
        if self.batch_timeout < Period::millis(1) {
            faults.refuse(format_args!("{key}.batch_timeout"), self.batch_timeout, "is not at least 1ms");
        }
        let least = ByteSize::bytes(memory::LEAST_BYTES);
        if let Some(input_memory) = self.input_memory.filter(|input_memory| *input_memory < least) {
            faults.refuse(format_args!("{key}.input_memory"), input_memory, format!("is not at least {least}"));
        }
        if self.retry_max < self.retry_initial {
            let rule = format!("is less than retry_initial, {}", self.retry_initial);
            faults.refuse(format_args!("{key}.retry_max"), self.retry_max, rule);
        }
    }

    /// The wait after failed attempt number `attempt` (from 1) of a job. It doubles from the first wait up to the
    /// longest. Up to a quarter is subtracted, depending on the job, so that jobs that failed together are not all
    /// retried at once.
    pub(crate) fn retry_after(&self, attempt: u32, id: &queue::JobId) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let wait = self.retry_initial.saturating_mul(1_u32 << doublings).min(self.retry_max.get());
        // FNV-1a spreads ids evenly and gives the same result in every run.
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
