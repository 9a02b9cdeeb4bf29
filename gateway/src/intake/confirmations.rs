//! Records in the ledger, in batches, which publications the broker has confirmed.
//!
//! Requests do not wait for this. If a confirmation is not recorded, upkeep publishes the job a second time, and the
//! ledger makes its effect happen once.

use std::sync::Arc;
use std::time::Duration;

use queue::{Ledger, Publication};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// The most confirmations that may wait to be recorded. Further ones are dropped.
const QUEUE_CAPACITY: usize = 65_536;
/// The most confirmations recorded in one round trip.
const BATCH: usize = 4096;
/// The time in which a batch collects confirmations, from its first one on. It is much shorter than the time after
/// which upkeep publishes a job again.
const GATHERING: Duration = Duration::from_millis(100);
/// How long the last batches may take when the gateway stops.
const FLUSHING: Duration = Duration::from_secs(2);

/// The sending end: the publications that the broker has confirmed.
#[derive(Debug)]
pub(crate) struct Confirmations(Sender<Publication>);

/// The receiving end: records confirmed publications in the ledger.
pub(crate) struct ConfirmationWriter {
    ledger: Arc<dyn Ledger>,
    confirmed: Receiver<Publication>,
}

pub(crate) fn channel(ledger: Arc<dyn Ledger>) -> (Confirmations, ConfirmationWriter) {
    let (sender, confirmed) = mpsc::channel(QUEUE_CAPACITY);
    (Confirmations(sender), ConfirmationWriter { ledger, confirmed })
}

impl Confirmations {
    /// Adds a publication that the broker has confirmed. Never waits.
    pub(crate) fn send(&self, publication: Publication) {
        if self.0.try_send(publication).is_err() {
            metrics::unconfirmed(1);
        }
    }
}

impl ConfirmationWriter {
    /// The number of confirmations that are not recorded yet.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.confirmed.len()
    }

    /// Runs until `closing`, then records the remaining confirmations and returns.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        let mut batch = Vec::new();
        while self.gather(&mut batch, &closing).await {
            self.record(&mut batch).await;
        }
        let flush = async {
            self.confirmed.close();
            loop {
                self.fill(&mut batch);
                if batch.is_empty() {
                    break;
                }
                self.record(&mut batch).await;
            }
        };
        if tokio::time::timeout(FLUSHING, flush).await.is_err() {
            tracing::warn!(timeout = ?FLUSHING, "the ledger was too slow to record the last confirmed jobs");
        }
    }

    /// Waits for a first publication, then collects more for a short time. Returns `false` when the gateway stops.
    async fn gather(&mut self, batch: &mut Vec<Publication>, closing: &CancellationToken) -> bool {
        tokio::select! {
            biased;
            () = closing.cancelled() => return false,
            first = self.confirmed.recv() => match first {
                Some(publication) => batch.push(publication),
                None => return false,
            },
        }
        tokio::select! {
            () = closing.cancelled() => return false,
            () = tokio::time::sleep(GATHERING) => {}
        }
        self.fill(batch);
        true
    }

    /// Receives without waiting, up to a full batch.
    fn fill(&mut self, batch: &mut Vec<Publication>) {
        while batch.len() < BATCH {
            match self.confirmed.try_recv() {
                Ok(publication) => batch.push(publication),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
    }

    async fn record(&self, batch: &mut Vec<Publication>) {
        if let Err(error) = self.ledger.published(batch).await {
            tracing::warn!(%error, jobs = batch.len(), "the ledger did not record confirmed jobs");
            metrics::unconfirmed(batch.len());
        }
        batch.clear();
    }
}
