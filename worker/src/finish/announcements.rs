//! Telling whoever listens how jobs ended.

use std::sync::Arc;

use futures::{StreamExt, stream};
use queue::{Announcer, Ending, Error, ErrorKind, Job, Ledger};

/// How many records are read at a time.
const READS: usize = 16;

/// Where it is told, if anywhere. It is told before a job's delivery is settled: a worker that vanishes in between leaves
/// the delivery behind, and whoever gets it finds the job ended and tells it again.
#[derive(Clone)]
pub(crate) struct Endings {
    pub(crate) announcer: Option<Arc<dyn Announcer>>,
    pub(crate) ledger: Arc<dyn Ledger>,
}

impl Endings {
    /// Tells of those of `jobs` that have ended. One answer per job, in order: `false` where it has ended, or may have,
    /// and that could not be told.
    pub(crate) async fn tell(&self, jobs: &[&Job]) -> Vec<bool> {
        let Some(announcer) = &self.announcer else { return vec![true; jobs.len()] };
        let ending = async |job: &&Job| {
            let record = self.ledger.get(&job.id).await?.filter(|record| record.state.has_ended());
            let (origin, trace_parent) = (job.origin.clone(), job.trace_parent.clone());
            Ok(record.map(|record| Ending { record, origin, trace_parent }))
        };
        let read: Vec<Result<Option<Ending>, Error>> = stream::iter(jobs).map(ending).buffered(READS).collect().await;
        let (mut told, mut endings) = (Vec::with_capacity(jobs.len()), Vec::new());
        for read in read {
            told.push(match read {
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
            tracing::warn!(%error, jobs = endings.len(), "cannot tell how jobs ended; it is told when they come again");
            for (job, told) in jobs.iter().zip(&mut told) {
                *told &= endings.iter().all(|ending| ending.record.id != job.id);
            }
        }
        told
    }
}

/// Announces endings. One that the broker will never take is told nowhere but in the ledger: it must not keep the others.
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
        tracing::error!(job = %ending.record.id, %error, "the broker refuses to tell how a job ended");
        return Ok(());
    }
    for ending in endings {
        Box::pin(announce(announcer, std::slice::from_ref(ending))).await?;
    }
    Ok(())
}
