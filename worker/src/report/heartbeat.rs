//! The heartbeat of this worker: its state and measurements, sent to the roster.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::batch_time_model::{BatchTime, BatchTimeModel};
use parking_lot::{Mutex, MutexGuard};
use queue::{Roster, WorkerId, WorkerRecord, WorkerState};
use tokio::time::{MissedTickBehavior, interval};

use crate::job::leases::Leases;

/// The time between two heartbeats.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time after which the roster removes a worker without a heartbeat.
const EXPIRY: Duration = Duration::from_secs(10);

/// The weight of the newest batch in the averages.
const NEWEST_WEIGHT: f64 = 0.1;

/// This worker's entry in the roster.
pub(crate) struct Heartbeat {
    roster: Arc<dyn Roster>,
    leases: Arc<Leases>,
    instances: usize,
    measured: Mutex<Measured>,
}

struct Measured {
    record: WorkerRecord,
    /// All instances share one model. They are equal, so each batch is a measurement of all of them.
    batch_times: BatchTimeModel,
}

impl Heartbeat {
    /// `record` is the entry before the model is loaded. Each of the `instances` runs batches of up to
    /// `max_batch_items`.
    pub(crate) fn new(
        roster: Arc<dyn Roster>,
        leases: Arc<Leases>,
        mut record: WorkerRecord,
        max_batch_items: usize,
        instances: usize,
    ) -> Self {
        record.batch_limit_items = u32::try_from(max_batch_items.saturating_mul(instances)).unwrap_or(u32::MAX);
        let measured = Mutex::new(Measured { record, batch_times: BatchTimeModel::new(max_batch_items) });
        Self { roster, leases, instances, measured }
    }

    /// Sends a heartbeat at every interval. Never returns.
    pub(crate) async fn run(&self) -> Infallible {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.send().await;
        }
    }

    /// Changes the state, and sends a heartbeat at once.
    pub(crate) async fn enter(&self, state: WorkerState) {
        self.change(|record| record.state = state);
        self.send().await;
    }

    /// The model is loaded, in a process that started at `started`. Returns the cold start in seconds.
    pub(crate) async fn ready(&self, started: Instant) -> f64 {
        let seconds = started.elapsed().as_secs_f64();
        self.change(|record| record.cold_start_seconds = seconds);
        self.enter(WorkerState::Idle).await;
        seconds
    }

    /// One of the instances ran a batch, which kept the worker busy for `busy`.
    pub(crate) fn batch_ran(&self, items: usize, busy: Duration) {
        let (seconds, instances) = (busy.as_secs_f64(), self.instances as f64);
        let mut measured = self.lock();
        let Measured { record, batch_times } = &mut *measured;
        batch_times.add(items, busy);
        // Batches of n items on each of k instances are k × n items in the time of one batch.
        let BatchTime { base_seconds, item_seconds } = batch_times.estimate();
        record.batch_base_seconds = base_seconds;
        record.batch_item_seconds = item_seconds / instances;
        let weight = if record.batch_seconds == 0.0 { 1.0 } else { NEWEST_WEIGHT };
        record.batch_items += weight * (items as f64 - record.batch_items);
        record.batch_seconds += weight * (seconds - record.batch_seconds);
    }

    /// Removes this worker from the roster.
    pub(crate) async fn leave(&self) {
        let id: WorkerId = self.change(|record| record.id.clone());
        if let Err(error) = self.roster.leave(&id).await {
            tracing::warn!(%error, "cannot leave the roster; the entry of this worker will expire");
        }
    }

    async fn send(&self) {
        let has_work = !self.leases.is_empty();
        let record = self.change(|record| {
            if matches!(record.state, WorkerState::Idle | WorkerState::Busy) {
                record.state = if has_work { WorkerState::Busy } else { WorkerState::Idle };
            }
            record.clone()
        });
        if let Err(error) = self.roster.heartbeat(&record, EXPIRY).await {
            tracing::warn!(%error, "cannot send a heartbeat to the roster");
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut WorkerRecord) -> T) -> T {
        change(&mut self.lock().record)
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock()
    }
}
