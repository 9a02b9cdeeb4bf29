//! Publishes how jobs ended to the pool's `results_to`.

use std::sync::Arc;

use futures::{StreamExt, stream};
use queue::{Announcer, Ending, Error, Job, JobId, Ledger, Origin};

/// The number of records that are read at a time.
const READS: usize = 16;

/// A job that has or may have ended.
pub(crate) enum EndedJob {
    /// This worker has recorded its ending.
    Recorded(Ending),
    /// Its ending is in the ledger: the job was cancelled, or another worker recorded its ending.
    InLedger { id: JobId, origin: Option<Origin>, trace_parent: Option<String> },
}

impl EndedJob {
    /// A job whose ending this worker has not recorded.
    pub(crate) fn in_ledger(job: &Job) -> Self {
        Self::InLedger { id: job.id.clone(), origin: job.origin.clone(), trace_parent: job.trace_parent.clone() }
    }

    fn id(&self) -> &JobId {
        match self {
            Self::Recorded(ending) => &ending.id,
            Self::InLedger { id, .. } => id,
        }
    }
}

/// Publishes endings if the pool has a place for them.
///
/// An ending is published before the delivery of its job is acknowledged. If the worker disappears in between, the job
/// is delivered again, and the next worker finds that it has ended and publishes the ending again.
#[derive(Clone)]
pub(crate) struct Announcements {
    pub(crate) announcer: Option<Arc<dyn Announcer>>,
    pub(crate) ledger: Arc<dyn Ledger>,
}

impl Announcements {
    /// Publishes the endings of those jobs that have ended. Returns one answer per job, in order: `false` if the job
    /// has or may have ended and its ending could not be published.
    pub(crate) async fn publish(&self, jobs: Vec<EndedJob>) -> Vec<bool> {
        let Some(announcer) = &self.announcer else { return vec![true; jobs.len()] };
        let ids: Vec<_> = jobs.iter().map(|job| job.id().clone()).collect();
        let read: Vec<_> = stream::iter(jobs).map(|job| self.ending(job)).buffered(READS).collect().await;
        let (mut published, mut endings) = (Vec::with_capacity(ids.len()), Vec::new());
        for read in read {
            published.push(match read {
                Ok(ending) => {
                    endings.extend(ending);
                    true
                }
                // A repetition would fail too, and requeue the delivery for ever.
                Err(error) if error.kind().is_about_a_value() => {
                    tracing::error!(%error, "the ledger cannot read how a job ended; its ending is not published");
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read how a job ended");
                    false
                }
            });
        }
        if let Err(error) = announce(&**announcer, &endings).await {
            tracing::warn!(%error, jobs = endings.len(), "cannot publish how jobs ended; requeueing them");
            for (id, is_published) in ids.iter().zip(&mut published) {
                *is_published &= endings.iter().all(|ending| ending.id != *id);
            }
        }
        published
    }

    /// Whether the pool has a place for endings.
    pub(crate) fn are_published(&self) -> bool {
        self.announcer.is_some()
    }

    async fn ending(&self, job: EndedJob) -> Result<Option<Ending>, Error> {
        match job {
            EndedJob::Recorded(ending) => Ok(Some(ending)),
            EndedJob::InLedger { id, origin, trace_parent } => {
                let record = self.ledger.get(&id).await?;
                Ok(record.and_then(|record| Ending::of_record(record, origin, trace_parent)))
            }
        }
    }
}

/// Publishes endings. An ending that the broker refuses permanently is only in the ledger, because it must not block
/// the others.
async fn announce(announcer: &dyn Announcer, endings: &[Ending]) -> Result<(), Error> {
    let announced = match endings {
        [] => Ok(()),
        endings => announcer.announce(endings).await,
    };
    let Err(error) = announced else { return Ok(()) };
    if !error.kind().is_about_a_value() {
        return Err(error);
    }
    if let [ending] = endings {
        tracing::error!(job = %ending.id, %error, "the broker refuses to publish how a job ended");
        return Ok(());
    }
    for ending in endings {
        Box::pin(announce(announcer, std::slice::from_ref(ending))).await?;
    }
    Ok(())
}
