//! The times of a simulated worker.

use std::time::Duration;

use policy::reading::BatchTime;

/// The times of a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worker {
    /// The time from its start until it takes jobs.
    pub cold_start: Duration,
    /// The time of a batch that does not depend on its size.
    pub batch_base: Duration,
    /// The additional time of each item of a batch.
    pub batch_item: Duration,
    /// The maximum number of items of a batch.
    pub batch_limit: u32,
}

impl Worker {
    /// The batch time model.
    pub fn batch_time(&self) -> BatchTime {
        BatchTime {
            base_seconds: self.batch_base.as_secs_f64(),
            item_seconds: self.batch_item.as_secs_f64(),
            limit_items: f64::from(self.batch_limit.max(1)),
        }
    }

    /// The time of a batch of `items` items.
    pub fn time_of_batch(&self, items: f64) -> Duration {
        self.batch_base + self.batch_item.mul_f64(items)
    }
}
