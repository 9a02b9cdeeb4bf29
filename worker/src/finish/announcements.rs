//! Publishes how jobs ended to the pool's `results_to`.

use std::sync::Arc;

use futures::{StreamExt, stream};
use queue::{Announcer, Ending, Error, ErrorKind, Job, Ledger};

/// The number of records that are read at a time.
const READS: usize = 16;

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
    pub(crate) async fn publish(&self, jobs: &[&Job]) -> Vec<bool> {
        let Some(announcer) = &self.announcer else { return vec![true; jobs.len()] };
        let ending = async |job: &&Job| {
            let record = self.ledger.get(&job.id).await?.filter(|record| record.state.has_ended());
            let (origin, trace_parent) = (job.origin.clone(), job.trace_parent.clone());
            Ok(record.map(|record| Ending { record, origin, trace_parent }))
        };
        let read: Vec<Result<Option<Ending>, Error>> = stream::iter(jobs).map(ending).buffered(READS).collect().await;
        let (mut published, mut endings) = (Vec::with_capacity(jobs.len()), Vec::new());
        for read in read {
            published.push(match read {
                Ok(ending) => {
                    endings.extend(ending);
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
            for (job, is_published) in jobs.iter().zip(&mut published) {
                *is_published &= endings.iter().all(|ending| ending.record.id != job.id);
            }
        }
        published
    }
}

/// Publishes endings. An ending that the broker refuses for good stays only in the ledger: it must not block the
/// others.
async fn announce(announcer: &dyn Announcer, endings: &[Ending]) -> Result<(), Error> {
    let announced = match endings {
        [] => Ok(()),
        endings => announcer.announce(endings).await,
    };
    let Err(error) = announced else { return Ok(()) };
    if error.kind() != ErrorKind::Refused {
        return Err(error);
    }
    if let [ending] = endings {
        tracing::error!(job = %ending.record.id, %error, "the broker refuses to publish how a job ended");
        return Ok(());
    }
    for ending in endings {
        Box::pin(announce(announcer, std::slice::from_ref(ending))).await?;
    }
    Ok(())
}
