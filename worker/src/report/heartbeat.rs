//! What this worker tells the roster of itself.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use queue::{Roster, WorkerId, WorkerRecord, WorkerState};
use tokio::time::{MissedTickBehavior, interval};

use crate::job::leases::Leases;
use crate::report::batch_time_model::{Curve, Line};

/// How often the roster hears from a worker, and how long after the last time it is struck out.
const BEAT_EVERY: Duration = Duration::from_secs(1);
const ALIVE: Duration = Duration::from_secs(10);

/// How much the newest batch weighs in the averages.
const NEWEST_WEIGHT: f64 = 0.1;

/// This worker's entry in the roster.
pub(crate) struct Presence {
    roster: Arc<dyn Roster>,
    leases: Arc<Leases>,
    instances: usize,
    known: Mutex<Known>,
}

/// What is known of this worker by now.
struct Known {
    record: WorkerRecord,
    /// Of one instance: they are alike, and each batch tells of all.
    curve: Curve,
}

impl Presence {
    /// `record` is what is known before the model is loaded; each of the `instances` runs batches of `max_batch_items`.
    pub(crate) fn new(
        roster: Arc<dyn Roster>,
        leases: Arc<Leases>,
        mut record: WorkerRecord,
        max_batch_items: usize,
        instances: usize,
    ) -> Self {
        record.batch_limit_items = u32::try_from(max_batch_items.saturating_mul(instances)).unwrap_or(u32::MAX);
        let known = Mutex::new(Known { record, curve: Curve::new(max_batch_items) });
        Self { roster, leases, instances, known }
    }

    /// Tells the roster at every beat, for ever.
    pub(crate) async fn beat(&self) -> Infallible {
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell().await;
        }
    }

    /// Enters a state, and tells the roster at once.
    pub(crate) async fn enter(&self, state: WorkerState) {
        self.change(|record| record.state = state);
        self.tell().await;
    }

    /// The model is ready.
    pub(crate) async fn ready(&self, started: Instant) -> f64 {
        let seconds = started.elapsed().as_secs_f64();
        self.change(|record| record.cold_start_seconds = seconds);
        self.enter(WorkerState::Idle).await;
        seconds
    }

    /// A batch has run on one of the instances, which kept the worker busy for so long.
    pub(crate) fn batch(&self, items: usize, busy: Duration) {
        let (seconds, instances) = (busy.as_secs_f64(), self.instances as f64);
        let mut known = self.lock();
        let Known { record, curve } = &mut *known;
        curve.batch(items, busy);
        // Batches of n items on each of k instances are k × n items in the time of one batch.
        let Line { base_seconds, item_seconds } = curve.line();
        record.batch_base_seconds = base_seconds;
        record.batch_item_seconds = item_seconds / instances;
        let weight = if record.batch_seconds == 0.0 { 1.0 } else { NEWEST_WEIGHT };
        record.batch_items += weight * (items as f64 - record.batch_items);
        record.batch_seconds += weight * (seconds - record.batch_seconds);
    }

    /// Strikes this worker out.
    pub(crate) async fn leave(&self) {
        let id: WorkerId = self.change(|record| record.id.clone());
        if let Err(error) = self.roster.leave(&id).await {
            tracing::warn!(%error, "cannot leave the roster: it will strike this worker out by itself");
        }
    }

    async fn tell(&self) {
        let has_work = !self.leases.is_empty();
        let record = self.change(|record| {
            if matches!(record.state, WorkerState::Idle | WorkerState::Busy) {
                record.state = if has_work { WorkerState::Busy } else { WorkerState::Idle };
            }
            record.clone()
        });
        if let Err(error) = self.roster.heartbeat(&record, ALIVE).await {
            tracing::warn!(%error, "cannot tell the roster that this worker is alive");
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut WorkerRecord) -> T) -> T {
        change(&mut self.lock().record)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
