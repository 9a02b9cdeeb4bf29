//! The thread that owns a model instance.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use queue::{JobErrorKind, Ledger};
use rayon::ThreadPool;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::batch::Batcher;
use crate::job::input::Inputs;
use crate::job::window::Window;
use crate::job::{ClaimedJob, Disposition, FinishedJob, ItemResult, ReadyInput, ReadyJob, RunJob};
use crate::report::heartbeat::Heartbeat;
use crate::report::{metrics, spans};
use crate::runtime::{Instance, Item, Model, ModelError, ModelErrorKind};
use crate::watchdog::Watchdog;

mod run_batch;
mod watched_instance;

use run_batch::run_batch;
use watched_instance::WatchedInstance;

/// The parts of the worker that a device thread uses. All device threads have clones of the same value.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) pool: Arc<str>,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) window: Arc<Window>,
    pub(crate) heartbeat: Arc<Heartbeat>,
    pub(crate) cpu: Arc<ThreadPool>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) inputs: Inputs,
    pub(crate) runtime: Handle,
    pub(crate) finished: mpsc::UnboundedSender<Vec<FinishedJob>>,
    /// Held while a suspect runs: two suspects never run at the same time.
    pub(crate) suspects: Arc<Mutex<()>>,
    pub(crate) max_batch_items: usize,
    pub(crate) watchdog: Arc<Watchdog>,
    /// The error of the first device whose warm-up batch failed after a batch of jobs had failed.
    pub(crate) self_test_error: Arc<OnceLock<ModelError>>,
    /// Stops this worker.
    pub(crate) stop: CancellationToken,
}

impl Device {
    /// Starts a thread that loads the model and then runs batches until the batcher is closed.
    ///
    /// The receiver gets the result of loading and of the warm-up. `any_ended` is cancelled when the thread ends, even
    /// by a panic.
    pub(crate) fn start(
        self,
        number: usize,
        any_ended: &CancellationToken,
    ) -> std::io::Result<oneshot::Receiver<Result<(), ModelError>>> {
        let (report_loaded, loaded) = oneshot::channel();
        let until_end = any_ended.clone().drop_guard();
        thread::Builder::new().name(format!("millrace-device-{number}")).spawn(move || {
            let _until_end = until_end;
            match self.load() {
                Ok(instance) => {
                    if report_loaded.send(Ok(())).is_ok() {
                        self.serve(instance);
                    }
                }
                // If the worker was stopped meanwhile, the receiver was dropped and the error does not matter.
                Err(error) => drop(report_loaded.send(Err(error))),
            }
        })?;
        Ok(loaded)
    }

    fn load(&self) -> Result<WatchedInstance, ModelError> {
        let start = Instant::now();
        let watch = self.watchdog.watch("loading the model", Arc::from([]));
        let instance = self.model.instance()?;
        drop(watch);
        let mut instance = WatchedInstance::new(instance, Arc::clone(&self.watchdog));
        let load_seconds = start.elapsed().as_secs_f64();
        instance.warm_up()?;
        let warm_up_seconds = start.elapsed().as_secs_f64() - load_seconds;
        metrics::cold_start_phase(&self.pool, "model", load_seconds);
        metrics::cold_start_phase(&self.pool, "warm_up", warm_up_seconds);
        tracing::info!(pool = %self.pool, load_seconds, warm_up_seconds, "model loaded");
        Ok(instance)
    }

    fn serve(&self, mut instance: WatchedInstance) {
        let mut free_since = Instant::now();
        while let Some(batch) = self.batcher.next(self.max_batch_items) {
            let mut suspect = None;
            let (jobs, items) = self.runnable(batch, &mut suspect);
            if items.is_empty() {
                continue;
            }
            let mut results = Vec::with_capacity(items.len());
            tracing::debug!(pool = %self.pool, items = items.len(), "running a batch");
            let began = Instant::now();
            instance.jobs = jobs.iter().map(|job| job.lease.lease().id.clone()).collect();
            let span = spans::infer(&self.pool, items.len(), jobs.iter().map(|job| &*job.span));
            span.in_scope(|| run_batch(&mut instance, &items, &mut results));
            let ended = Instant::now();
            spans::inferred(&span, &results);
            drop(span);
            metrics::batch_ran(&self.pool, items.len(), ended.duration_since(began).as_secs_f64());
            // These batches are not typical, so they are not measured: a suspect also waits for the ledger, and a
            // failure may be fast.
            if suspect.is_none() && results.iter().all(Result::is_ok) {
                self.heartbeat.batch_ran(items.len(), busy_time(&jobs, free_since, ended));
            }
            if all_failed(&results)
                && let Err(error) = self_test(&mut instance)
            {
                return self.fail(jobs, error);
            }
            free_since = Instant::now();
            let ran = RunJob::all(jobs, results);
            drop(suspect);
            let device = self.clone();
            self.cpu.spawn(move || {
                let finished = |RunJob { job, result }| FinishedJob::ran(job, device.present(result));
                device.finish(ran.into_iter().map(finished).collect());
            });
        }
    }

    /// Releases the jobs, which are not at fault, and stops this worker.
    fn fail(&self, jobs: Vec<ClaimedJob>, error: ModelError) {
        let jobs_requeued = jobs.len();
        tracing::error!(pool = %self.pool, %error, jobs_requeued, "the warm-up batch fails; this worker stops");
        drop(self.self_test_error.set(error));
        self.finish(FinishedJob::not_run(jobs.into_iter().map(|job| (job, Disposition::Released))));
        self.stop.cancel();
    }

    /// The jobs of a batch that this worker may still run, with their items. The other jobs are finished.
    fn runnable<'d>(
        &'d self,
        batch: Vec<ReadyJob>,
        suspect: &mut Option<MutexGuard<'d, ()>>,
    ) -> (Vec<ClaimedJob>, Vec<Item>) {
        let (mut jobs, mut items, mut not_run) = (Vec::with_capacity(batch.len()), Vec::new(), Vec::new());
        for ReadyJob { mut job, input } in batch {
            let item = match (job.ended_before_start(), input) {
                (Some(end), _) => Err(end),
                (None, ReadyInput::Prepared(item)) => Ok(item),
                (None, ReadyInput::Unread) => {
                    *suspect = Some(self.suspects.lock());
                    self.begin(&mut job)
                }
            };
            match item {
                Ok(item) => {
                    jobs.push(job);
                    items.push(item);
                }
                Err(disposition) => not_run.push((job, disposition)),
            }
        }
        if !not_run.is_empty() {
            self.finish(FinishedJob::not_run(not_run));
        }
        (jobs, items)
    }

    /// Begins a suspect. After this call its attempt counts, even if the job crashes this process.
    ///
    /// All results are written first, so that a crash loses no result. This is most important for a suspect that ran
    /// before: it must not be charged for a crash that this suspect causes.
    fn begin(&self, job: &mut ClaimedJob) -> Result<Item, Disposition> {
        self.runtime.block_on(self.window.wait_until_written());
        match self.runtime.block_on(self.ledger.begin(job.lease.lease())) {
            Ok(true) => {
                let body = self.runtime.block_on(self.inputs.read_alone(job, &self.stop))?;
                self.inputs.check_memory(job, self.model.as_ref(), &body)?;
                let _watch = self.watchdog.watch("preparing an input", Arc::from([job.lease.lease().id.clone()]));
                job.prepare(self.model.as_ref(), body).map_err(Disposition::Failed)
            }
            Ok(false) => Err(Disposition::LeaseLost),
            Err(error) => {
                tracing::warn!(%error, "cannot begin a job that must run alone; requeueing it");
                Err(Disposition::Released)
            }
        }
    }

    /// Turns the output tensors of a job into its output.
    fn present(&self, result: ItemResult) -> Disposition {
        let tensors = match result {
            Ok(tensors) => tensors,
            Err(error) => return Disposition::Retry(JobErrorKind::ModelError.error(error.to_string())),
        };
        match catch_unwind(AssertUnwindSafe(|| self.model.present(tensors))) {
            Ok(Ok(output)) => Disposition::Succeeded(output),
            // Values such as NaN come from the model or its device, so another attempt may succeed.
            Ok(Err(error)) => Disposition::Retry(error),
            Err(_) => Disposition::Failed(JobErrorKind::ModelError.error("presenting the result panicked")),
        }
    }

    fn finish(&self, jobs: Vec<FinishedJob>) {
        // The outbox ends after all devices. If it fails earlier, the broker delivers the jobs again.
        drop(self.finished.send(jobs));
    }
}

/// Whether all items failed, and not because of their shape or type alone.
fn all_failed(results: &[ItemResult]) -> bool {
    let is_input = |error: &ModelError| error.kind() == ModelErrorKind::Input;
    results.iter().all(Result::is_err)
        && results.iter().filter_map(|result| result.as_ref().err()).any(|e| !is_input(e))
}

/// Runs the warm-up batch, which a sound model can always run. So its failure is a fault of this worker.
fn self_test(instance: &mut WatchedInstance) -> Result<(), ModelError> {
    instance.jobs = Arc::from([]);
    catch_unwind(AssertUnwindSafe(|| instance.warm_up()))
        .unwrap_or_else(|_| Err(ModelError::model("the model panicked in its warm-up batch")))
}

/// The time that this worker was busy with a batch that ended now, as defined by [`queue::WorkerRecord`].
fn busy_time(batch: &[ClaimedJob], free_since: Instant, ended: Instant) -> Duration {
    let first_received = batch.iter().map(|job| job.received).min();
    ended.saturating_duration_since(first_received.map_or(free_since, |received| received.max(free_since)))
}
