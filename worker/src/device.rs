//! The thread that owns a model instance.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::HostTensor;
use queue::{JobError, Ledger};
use rayon::ThreadPool;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::batch::Batcher;
use crate::job::window::Window;
use crate::job::{Held, How, Leaving, Ready, Work};
use crate::report::heartbeat::Presence;
use crate::report::metrics;
use crate::runtime::{Instance, Item, Model, ModelError};
use crate::take;

/// What a device thread works with.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) pool: Arc<str>,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) window: Arc<Window>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) cpu: Arc<ThreadPool>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) runtime: Handle,
    pub(crate) leaving: mpsc::UnboundedSender<Vec<Leaving>>,
    pub(crate) suspects: Arc<Mutex<()>>,
    pub(crate) max_batch_items: usize,
}

impl Device {
    /// Starts a thread that loads the model and then runs batches until the batcher is closed. Answers when the model is
    /// loaded and has run once, or why it cannot; `any_ended` is cancelled when the thread ends, however it ends.
    pub(crate) fn start(
        self,
        number: usize,
        any_ended: &CancellationToken,
    ) -> std::io::Result<oneshot::Receiver<Result<(), ModelError>>> {
        let (tell_loaded, loaded) = oneshot::channel();
        let until_end = any_ended.clone().drop_guard();
        thread::Builder::new().name(format!("millrace-device-{number}")).spawn(move || {
            let _until_end = until_end;
            match self.load() {
                Ok(instance) => {
                    if tell_loaded.send(Ok(())).is_ok() {
                        self.serve(instance);
                    }
                }
                // The starter may have given up meanwhile; then nobody needs to know.
                Err(error) => drop(tell_loaded.send(Err(error))),
            }
        })?;
        Ok(loaded)
    }

    fn load(&self) -> Result<Box<dyn Instance>, ModelError> {
        let loading = Instant::now();
        let mut instance = self.model.instance()?;
        let loaded = loading.elapsed().as_secs_f64();
        instance.warm_up()?;
        let warm_up = loading.elapsed().as_secs_f64() - loaded;
        tracing::info!(pool = %self.pool, load_seconds = loaded, warm_up_seconds = warm_up, "model loaded");
        Ok(instance)
    }

    fn serve(&self, mut instance: Box<dyn Instance>) {
        let mut free_since = Instant::now();
        while let Some(batch) = self.batcher.next(self.max_batch_items) {
            // Held until its batch has run: two suspects never run at the same time.
            let mut suspect = None;
            let (held, items) = self.to_run(batch, &mut suspect);
            if items.is_empty() {
                continue;
            }
            let mut results = Vec::with_capacity(items.len());
            tracing::debug!(pool = %self.pool, items = items.len(), "a batch begins");
            let began = Instant::now();
            run(instance.as_mut(), &items, &mut results);
            let ended = Instant::now();
            metrics::batch_ran(&self.pool, items.len(), ended.duration_since(began).as_secs_f64());
            // A suspect waits for the ledger besides, and what fails fast is no fast batch: they tell nothing of what others take.
            if suspect.is_none() && results.iter().all(Result::is_ok) {
                self.presence.batch(items.len(), busy(&held, free_since, ended));
            }
            free_since = ended;
            // The next jobs may come while these are presented and written.
            self.window.ran(held.len());
            drop(suspect);
            let device = self.clone();
            self.cpu.spawn(move || {
                let leaving =
                    held.into_iter().zip(results).map(|(held, result)| Leaving { held, how: device.present(result) });
                device.leave(leaving.collect());
            });
        }
    }

    /// What of a batch is still this worker's to run; the rest leaves.
    fn to_run<'d>(&'d self, batch: Vec<Ready>, suspect: &mut Option<MutexGuard<'d, ()>>) -> (Vec<Held>, Vec<Item>) {
        let (mut kept, mut items, mut leaving) = (Vec::with_capacity(batch.len()), Vec::new(), Vec::new());
        for Ready { held, work } in batch {
            let item = match work {
                _ if held.lost.is_set() => Err(How::LeaseLost),
                Work::Prepared(item) => Ok(item),
                Work::Raw(body) => {
                    *suspect = Some(self.suspects.lock().unwrap_or_else(PoisonError::into_inner));
                    self.begin(&held, body)
                }
            };
            match item {
                Ok(item) => {
                    kept.push(held);
                    items.push(item);
                }
                Err(how) => leaving.push(Leaving { held, how }),
            }
        }
        if !leaving.is_empty() {
            self.window.ran(leaving.len());
            self.leave(leaving);
        }
        (kept, items)
    }

    /// Begins a suspect: from here on it is charged for the attempt even if it takes this process down. Nothing that has
    /// run may go down with it, least of all another suspect, which would be charged for what this one did.
    fn begin(&self, held: &Held, body: Bytes) -> Result<Item, How> {
        self.runtime.block_on(self.window.all_written());
        match self.runtime.block_on(self.ledger.begin(&held.lease)) {
            Ok(true) => take::prepare(self.model.as_ref(), held, body).map_err(How::Failed),
            Ok(false) => Err(How::LeaseLost),
            Err(error) => {
                tracing::warn!(%error, "cannot begin a job that must run alone; giving it back");
                Err(How::Released)
            }
        }
    }

    fn present(&self, result: Result<Vec<HostTensor>, ModelError>) -> How {
        let presented = result.map(|tensors| catch_unwind(AssertUnwindSafe(|| self.model.present(tensors))));
        match presented {
            Ok(Ok(Ok(output))) => How::Succeeded(output),
            Ok(Ok(Err(error))) => How::Failed(error),
            Ok(Err(_)) => How::Failed(JobError {
                kind: "model_error".to_owned(),
                message: "presenting the result panicked".to_owned(),
            }),
            Err(error) => How::Retry(JobError { kind: "model_error".to_owned(), message: error.to_string() }),
        }
    }

    fn leave(&self, leaving: Vec<Leaving>) {
        // The outbox lives until every device has ended; if it does not, the deliveries come again by themselves.
        drop(self.leaving.send(leaving));
    }
}

/// For how long this worker was busy with a batch that ended now, as [`queue::WorkerRecord`] has it.
fn busy(batch: &[Held], free_since: Instant, ended: Instant) -> Duration {
    let received = batch.iter().map(|held| held.received).min();
    ended.saturating_duration_since(received.map_or(free_since, |received| received.max(free_since)))
}

/// Runs items, in order. When a batch fails, its halves are run by themselves, down to the item at fault.
fn run(instance: &mut dyn Instance, items: &[Item], results: &mut Vec<Result<Vec<HostTensor>, ModelError>>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| instance.run(items)))
        .unwrap_or_else(|_| Err(ModelError::model("the model panicked")));
    match outcome {
        Ok(outputs) if outputs.len() == items.len() => results.extend(outputs.into_iter().map(Ok)),
        Ok(outputs) => {
            let message = format!("the model gave {} results for {} items", outputs.len(), items.len());
            results.extend(items.iter().map(|_| Err(ModelError::model(message.clone()))));
        }
        Err(error) if items.len() == 1 => results.push(Err(error)),
        Err(error) => {
            tracing::warn!(%error, items = items.len(), "a batch failed; running its halves");
            let (first, second) = items.split_at(items.len() / 2);
            run(instance, first, results);
            run(instance, second, results);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Echo;

    use super::*;

    #[test]
    fn a_poison_item_fails_alone() {
        let echo = Echo::with_faults();
        let items: Vec<Item> = ["a", "b", "fail:model", "d", "e"]
            .map(|body| echo.prepare("text/plain", Bytes::from_static(body.as_bytes())).unwrap())
            .into();
        let mut results = Vec::new();
        run(echo.instance().unwrap().as_mut(), &items, &mut results);
        let failed: Vec<bool> = results.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, false, true, false, false]);
        for (item, result) in items.iter().zip(&results) {
            assert!(result.as_ref().is_err() || result.as_ref().unwrap() == &item.tensors);
        }
    }

    #[test]
    fn a_model_that_panics_or_miscounts_fails_the_jobs_not_the_worker() {
        struct Broken;
        impl Instance for Broken {
            fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
                assert!(items.len() != 1, "a panic on purpose");
                Ok(Vec::new())
            }

            fn warm_up(&mut self) -> Result<(), ModelError> {
                Ok(())
            }
        }
        let item = Item { tensors: Vec::new() };
        for items in [vec![item.clone()], vec![item; 2]] {
            let mut results = Vec::new();
            run(&mut Broken, &items, &mut results);
            assert_eq!(results.len(), items.len());
            assert!(results.iter().all(Result::is_err));
        }
    }
}
