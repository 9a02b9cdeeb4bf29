//! The workers of a simulated pool.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use model::batch_time_model::BatchTimeModel;
use policy::reading::{self, Measurements, Reading};
use queue::{Depth, JobCounts, PoolName, WorkerId, WorkerRecord, WorkerState};

use super::WaitingJob;
use crate::conditions::{Conditions, Fate};
use crate::view::clock;
use crate::worker::Worker;

/// The weight of the newest batch in a worker's averages, as in its heartbeat.
const NEWEST_WEIGHT: f64 = 0.1;

/// The states of a worker, in the order in which Kubernetes stops pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PoolWorkerState {
    /// Its pod is pending.
    Provisioning,
    Loading,
    Idle,
    Busy,
}

/// A started worker.
struct PoolWorker {
    number: u32,
    /// The number of its crashes.
    life: u32,
    requested: Duration,
    ready: Duration,
    state: PoolWorkerState,
    /// The jobs it holds, and the time of the batch.
    batch: (Vec<WaitingJob>, Duration),
    /// Whether it stops after its present batch.
    is_draining: bool,
    fate: Fate,
    model: BatchTimeModel,
    /// As in the roster.
    record: WorkerRecord,
}

pub(super) struct Fleet {
    times: Worker,
    conditions: Conditions,
    /// The measurements that the pool's workers made before the run.
    known: Measurements,
    /// Whether a worker of this run has measured its batches.
    is_measured: bool,
    pool: PoolName,
    /// In the order of their numbers.
    workers: Vec<PoolWorker>,
    started: u32,
    leased: u64,
    /// The number of workers that are idle and do not drain.
    idle: usize,
    /// The number of workers that are idle or busy.
    ready: usize,
}

impl Fleet {
    pub(super) fn new(times: Worker, known: Measurements, conditions: Conditions) -> Self {
        #[allow(clippy::expect_used, reason = "a constant that the unit tests parse")]
        let pool = "simulated".parse().expect("a valid name");
        let (workers, is_measured) = (Vec::new(), false);
        Self { times, conditions, known, is_measured, pool, workers, started: 0, leased: 0, idle: 0, ready: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    pub(super) fn has_ready(&self) -> bool {
        self.ready > 0
    }

    /// Jobs that workers hold.
    pub(super) fn leased(&self) -> u64 {
        self.leased
    }

    /// Workers that do not drain.
    pub(super) fn remaining(&self) -> usize {
        self.workers.iter().filter(|worker| !worker.is_draining).count()
    }

    pub(super) fn provisioning(&self) -> u32 {
        let pending = self.workers.iter().filter(|worker| worker.state == PoolWorkerState::Provisioning);
        u32::try_from(pending.count()).unwrap_or(u32::MAX)
    }

    /// The registered workers, as the scaler reads them from the roster.
    pub(super) fn reading(&self, now: Duration) -> reading::Fleet {
        let registered = self.workers.iter().filter(|worker| worker.state != PoolWorkerState::Provisioning);
        let records: Vec<WorkerRecord> = registered.map(|worker| worker.record.clone()).collect();
        let (depth, counts) = (Depth::default(), [JobCounts::default(); 2]);
        let mut fleet = Reading::new(now, clock(now), &depth, counts, &records).fleet;
        if !self.is_measured {
            fleet.measurements = self.known;
        }
        fleet
    }

    /// The worker with this number, if it has crashed as often as at the time of an event.
    pub(super) fn place(&self, number: u32, life: u32) -> Option<usize> {
        let place = self.workers.binary_search_by_key(&number, |worker| worker.number).ok()?;
        (self.workers[place].life == life).then_some(place)
    }

    pub(super) fn state(&self, place: usize) -> PoolWorkerState {
        self.workers[place].state
    }

    pub(super) fn is_draining(&self, place: usize) -> bool {
        self.workers[place].is_draining
    }

    /// Requests a worker. Returns its number and when it registers.
    pub(super) fn start(&mut self, now: Duration) -> (u32, Duration) {
        self.started += 1;
        let number = self.started;
        let fate = self.conditions.fate(number);
        let registered = now + fate.provisioning;
        let id = WorkerId::new(number.to_string());
        self.workers.push(PoolWorker {
            number,
            life: 0,
            requested: now,
            ready: Duration::MAX,
            state: PoolWorkerState::Provisioning,
            batch: (Vec::new(), Duration::ZERO),
            is_draining: false,
            model: BatchTimeModel::new(self.times.batch_limit.max(1) as usize),
            record: WorkerRecord::new(id, self.pool.clone(), Timestamp::UNIX_EPOCH),
            fate,
        });
        (number, registered)
    }

    /// The process of a worker starts. Returns when it will be ready, or `None` for never.
    pub(super) fn register(&mut self, place: usize, now: Duration) -> Option<Duration> {
        let worker = &mut self.workers[place];
        worker.state = PoolWorkerState::Loading;
        worker.record.started_at = clock(now);
        worker.record.state = WorkerState::Loading;
        worker.record.batch_limit_items = self.times.batch_limit.max(1);
        worker.fate.becomes_ready.then(|| now + self.times.cold_start)
    }

    /// A worker has loaded. Returns when it will crash, or `None` for never.
    pub(super) fn ready(&mut self, place: usize, now: Duration) -> Option<Duration> {
        let worker = &mut self.workers[place];
        worker.state = PoolWorkerState::Idle;
        worker.ready = now;
        worker.record.state = WorkerState::Idle;
        worker.record.cold_start_seconds = self.times.cold_start.as_secs_f64();
        self.ready += 1;
        self.idle += 1;
        self.conditions.crashes_after.map(|mean| now.saturating_add(worker.fate.next_crash(mean)))
    }

    /// The oldest idle worker.
    pub(super) fn next_idle(&self) -> Option<usize> {
        if self.idle == 0 {
            return None;
        }
        self.workers.iter().position(|worker| worker.state == PoolWorkerState::Idle && !worker.is_draining)
    }

    /// Returns the number and the life of the worker.
    pub(super) fn begin_batch(&mut self, place: usize, jobs: Vec<WaitingJob>, takes: Duration) -> (u32, u32) {
        self.leased += jobs.len() as u64;
        self.idle -= 1;
        let worker = &mut self.workers[place];
        worker.state = PoolWorkerState::Busy;
        worker.record.state = WorkerState::Busy;
        worker.batch = (jobs, takes);
        (worker.number, worker.life)
    }

    /// Returns the jobs of the batch.
    pub(super) fn end_batch(&mut self, place: usize) -> Vec<WaitingJob> {
        let worker = &mut self.workers[place];
        let (jobs, took) = std::mem::take(&mut worker.batch);
        worker.state = PoolWorkerState::Idle;
        worker.record.state = if worker.is_draining { WorkerState::Draining } else { WorkerState::Idle };
        self.idle += usize::from(!worker.is_draining);
        self.leased -= jobs.len() as u64;
        if self.conditions.learns {
            self.is_measured = true;
            worker.model.add(jobs.len(), took);
            let estimate = worker.model.estimate();
            let weight = if worker.record.batch_items > 0.0 { NEWEST_WEIGHT } else { 1.0 };
            worker.record.batch_items += weight * (jobs.len() as f64 - worker.record.batch_items);
            worker.record.batch_seconds += weight * (took.as_secs_f64() - worker.record.batch_seconds);
            worker.record.batch_base_seconds = estimate.base_seconds;
            worker.record.batch_item_seconds = estimate.item_seconds;
        }
        jobs
    }

    /// A ready worker crashes and loads again. Returns the jobs that it held.
    pub(super) fn crash(&mut self, place: usize, now: Duration) -> Vec<WaitingJob> {
        let worker = &mut self.workers[place];
        self.idle -= usize::from(worker.state == PoolWorkerState::Idle && !worker.is_draining);
        self.ready -= 1;
        let (jobs, _) = std::mem::take(&mut worker.batch);
        self.leased -= jobs.len() as u64;
        worker.life += 1;
        worker.state = PoolWorkerState::Loading;
        worker.ready = Duration::MAX;
        worker.model = BatchTimeModel::new(self.times.batch_limit.max(1) as usize);
        // The new process registers under an id of its own. The record of the old one expires after ten seconds, which
        // is left out here.
        let id = WorkerId::new(format!("{}-{}", worker.number, worker.life));
        worker.record = WorkerRecord::new(id, self.pool.clone(), clock(now));
        worker.record.batch_limit_items = self.times.batch_limit.max(1);
        jobs
    }

    /// The worker that the ReplicaSet controller stops next: a pending pod before a running one, a pod that is not
    /// ready before a ready one, then the one that is ready, or exists, for the shorter time on a logarithmic scale, and
    /// of nearly the same age the one with the lower uid. The controller does not know which worker is busy.
    ///
    /// Source: Kubernetes 1.36, `pkg/controller/controller_utils.go`, `ActivePodsWithRanks.Less`.
    pub(super) fn victim(&self, now: Duration) -> Option<usize> {
        let rank = |worker: &PoolWorker| {
            let state = worker.state.min(PoolWorkerState::Idle);
            let since = if state == PoolWorkerState::Idle { worker.ready } else { worker.requested };
            let age = now.saturating_sub(since).as_nanos().max(1).ilog2();
            (state, age, Reverse(worker.life), worker.fate.uid)
        };
        let candidates = self.workers.iter().enumerate().filter(|(_, worker)| !worker.is_draining);
        candidates.min_by_key(|(_, worker)| rank(worker)).map(|(place, _)| place)
    }

    /// A busy worker ends its batch and takes no other one.
    pub(super) fn drain(&mut self, place: usize) {
        let worker = &mut self.workers[place];
        worker.is_draining = true;
        worker.record.state = WorkerState::Draining;
    }

    /// Removes a worker. Returns its cost.
    pub(super) fn stop(&mut self, place: usize, now: Duration) -> Duration {
        let worker = self.workers.remove(place);
        let is_ready = matches!(worker.state, PoolWorkerState::Idle | PoolWorkerState::Busy);
        self.ready -= usize::from(is_ready);
        self.idle -= usize::from(worker.state == PoolWorkerState::Idle && !worker.is_draining);
        now - worker.requested
    }

    /// The cost so far of the workers that still run.
    pub(super) fn cost_of_present(&self, now: Duration) -> Duration {
        self.workers.iter().map(|worker| now - worker.requested).sum()
    }
}
