//! Keeps the claims on what this worker holds.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue::{JobId, Lease, Ledger};
use tokio::time::{MissedTickBehavior, interval};

use crate::job::Lost;

/// The leases this worker holds, by job and fence (it may hold a job twice, once in vain).
pub(crate) struct Leases {
    ledger: Arc<dyn Ledger>,
    duration: Duration,
    held: Mutex<HashMap<(JobId, u64), (Lease, Lost)>>,
}

impl Leases {
    pub(crate) fn new(ledger: Arc<dyn Ledger>, duration: Duration) -> Self {
        Self { ledger, duration, held: Mutex::default() }
    }

    /// How long a lease holds without being renewed.
    pub(crate) fn duration(&self) -> Duration {
        self.duration
    }

    /// Keeps a lease from here on; the mark is set should it be lost.
    pub(crate) fn keep(&self, lease: &Lease) -> Lost {
        let lost = Lost::default();
        self.lock().insert((lease.id.clone(), lease.fence), (lease.clone(), lost.clone()));
        lost
    }

    /// Keeps a lease no longer.
    pub(crate) fn forget(&self, lease: &Lease) {
        self.lock().remove(&(lease.id.clone(), lease.fence));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Renews all leases every third of their duration, for ever.
    pub(crate) async fn renew(&self) -> Infallible {
        let mut ticks = interval(self.duration / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let leases: Vec<Lease> = self.lock().values().map(|(lease, _)| lease.clone()).collect();
            if leases.is_empty() {
                continue;
            }
            match self.ledger.renew(&leases, self.duration).await {
                Ok(renewed) => {
                    for (lease, _) in leases.iter().zip(renewed).filter(|(_, renewed)| !renewed) {
                        if let Some((_, lost)) = self.lock().remove(&(lease.id.clone(), lease.fence)) {
                            lost.set();
                        }
                    }
                }
                // Work goes on: if the leases run out meanwhile, the fence refuses the results.
                Err(error) => tracing::warn!(%error, leases = leases.len(), "cannot renew leases; trying again"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(JobId, u64), (Lease, Lost)>> {
        // Every change of the map is a single call, so a panic cannot leave it half-changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
