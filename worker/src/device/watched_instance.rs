//! An instance whose calls are watched.

use std::sync::Arc;

use model::HostTensor;
use queue::JobId;

use crate::runtime::{Instance, Item, ModelError};
use crate::watchdog::Watchdog;

/// An instance whose every call has the time limit of the watchdog.
pub(super) struct WatchedInstance {
    instance: Box<dyn Instance>,
    watchdog: Arc<Watchdog>,
    /// The jobs of the batch that runs.
    pub(super) jobs: Arc<[JobId]>,
}

impl WatchedInstance {
    pub(super) fn new(instance: Box<dyn Instance>, watchdog: Arc<Watchdog>) -> Self {
        Self { instance, watchdog, jobs: Arc::from([]) }
    }
}

impl Instance for WatchedInstance {
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
        let _watch = self.watchdog.watch("a batch", Arc::clone(&self.jobs));
        self.instance.run(items)
    }

    fn warm_up(&mut self) -> Result<(), ModelError> {
        let _watch = self.watchdog.watch("the warm-up batch", Arc::from([]));
        self.instance.warm_up()
    }
}
