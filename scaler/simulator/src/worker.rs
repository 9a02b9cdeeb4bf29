//! What a simulated worker is like.

use std::time::Duration;

use policy::reading::Batch;

/// What a worker is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worker {
    /// From its start until it takes jobs.
    pub cold_start: Duration,
    /// What a batch takes, however small it is.
    pub batch_base: Duration,
    /// What each item of it takes besides.
    pub batch_item: Duration,
    /// The most items of a batch.
    pub batch_limit: u32,
}

impl Worker {
    /// How long its batches take.
    pub fn curve(&self) -> Batch {
        Batch {
            base_seconds: self.batch_base.as_secs_f64(),
            item_seconds: self.batch_item.as_secs_f64(),
            limit_items: f64::from(self.batch_limit.max(1)),
        }
    }

    /// How long a batch of so many items takes.
    pub fn batch(&self, items: f64) -> Duration {
        self.batch_base + self.batch_item.mul_f64(items)
    }
}
