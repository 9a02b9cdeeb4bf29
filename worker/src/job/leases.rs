//! The leases of the jobs that this worker holds, and their renewal.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use queue::{ErrorKind, JobId, Lease, Ledger};
use tokio::time::{MissedTickBehavior, interval};

/// The longest time between two renewals.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);

/// All leases of this worker. The key contains the fence, because the worker can hold two leases of one job, one of
/// which is lost.
pub(crate) struct Leases {
    ledger: Arc<dyn Ledger>,
    duration: Duration,
    renewed: Mutex<HashMap<(JobId, u64), Renewal>>,
}

#[derive(Clone)]
struct Renewal {
    lease: Lease,
    is_lost: Arc<AtomicBool>,
}

/// A lease that is renewed until this value is dropped.
pub(crate) struct RenewedLease {
    renewal: Renewal,
    leases: Arc<Leases>,
}

impl RenewedLease {
    pub(crate) fn lease(&self) -> &Lease {
        &self.renewal.lease
    }

    /// Whether the ledger has refused to renew the lease.
    pub(crate) fn is_lost(&self) -> bool {
        self.renewal.is_lost.load(Ordering::Relaxed)
    }
}

impl Drop for RenewedLease {
    fn drop(&mut self) {
        self.leases.lock().remove(&key(self.lease()));
    }
}

impl Leases {
    pub(crate) fn new(ledger: Arc<dyn Ledger>, duration: Duration) -> Self {
        Self { ledger, duration, renewed: Mutex::default() }
    }

    /// The time from a claim or a renewal to the expiry of a lease.
    pub(crate) fn duration(&self) -> Duration {
        self.duration
    }

    /// Renews a lease from this call on.
    pub(crate) fn add(self: &Arc<Self>, lease: Lease) -> RenewedLease {
        let renewal = Renewal { lease, is_lost: Arc::default() };
        self.lock().insert(key(&renewal.lease), renewal.clone());
        RenewedLease { renewal, leases: Arc::clone(self) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Renews all leases, at least three times per duration. Never returns.
    ///
    /// A refused renewal is how this worker learns that a job was cancelled, so no interval is longer than a second.
    pub(crate) async fn renew(&self) -> Infallible {
        let mut ticks = interval((self.duration / 3).min(LONGEST_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let leases: Vec<Lease> = self.lock().values().map(|renewal| renewal.lease.clone()).collect();
            if leases.is_empty() {
                continue;
            }
            // One lease that the ledger cannot renew must not make the others expire.
            if self.renew_together(&leases).await.is_err_and(|kind| kind.is_about_a_value()) && leases.len() > 1 {
                for lease in &leases {
                    let _ = self.renew_together(std::slice::from_ref(lease)).await;
                }
            }
        }
    }

    async fn renew_together(&self, leases: &[Lease]) -> Result<(), ErrorKind> {
        let renewed = self.ledger.renew(leases, self.duration).await.map_err(|error| {
            // Jobs continue to run. If their leases expire meanwhile, the fence rejects the results.
            tracing::warn!(%error, leases = leases.len(), "cannot renew leases; trying again");
            error.kind()
        })?;
        for (lease, _) in leases.iter().zip(renewed).filter(|(_, is_renewed)| !is_renewed) {
            if let Some(renewal) = self.lock().remove(&key(lease)) {
                renewal.is_lost.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(JobId, u64), Renewal>> {
        // Each change of the map is a single call, so a panic cannot leave it half-changed.
        self.renewed.lock()
    }
}

fn key(lease: &Lease) -> (JobId, u64) {
    (lease.id.clone(), lease.fence)
}
