//! Tells the ledger, after the fact and in batches, which jobs the broker has confirmed.
//!
//! Off the path of the requests, because nobody waits for it: a job of which the ledger is never told is published a
//! second time, and the ledger makes its effect happen once.

use std::sync::Arc;
use std::time::Duration;

use queue::{Ledger, Publication};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// How many confirmations may wait. Past that they are dropped.
const WAITING: usize = 65_536;
/// The most told in one round trip.
const BATCH: usize = 4096;
/// How long a batch gathers after its first. Well below the time after which the ledger gives a job out again.
const GATHERING: Duration = Duration::from_millis(100);
/// How long the last batches may take when the gateway stops.
const FLUSHING: Duration = Duration::from_secs(2);

/// Takes what the broker has confirmed.
#[derive(Debug)]
pub(crate) struct Confirmations(Sender<Publication>);

/// Tells the ledger.
pub(crate) struct Confirmer {
    ledger: Arc<dyn Ledger>,
    confirmed: Receiver<Publication>,
}

/// The two ends.
pub(crate) fn channel(ledger: Arc<dyn Ledger>) -> (Confirmations, Confirmer) {
    let (sender, confirmed) = mpsc::channel(WAITING);
    (Confirmations(sender), Confirmer { ledger, confirmed })
}

impl Confirmations {
    /// The broker has confirmed a publication. Never waits.
    pub(crate) fn confirm(&self, publication: Publication) {
        if self.0.try_send(publication).is_err() {
            metrics::unconfirmed(1);
        }
    }
}

impl Confirmer {
    /// Runs until `closing`, then tells what is left and returns.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        let mut batch = Vec::new();
        while self.gather(&mut batch, &closing).await {
            self.tell(&mut batch).await;
        }
        let flush = async {
            self.confirmed.close();
            loop {
                self.fill(&mut batch);
                if batch.is_empty() {
                    break;
                }
                self.tell(&mut batch).await;
            }
        };
        if tokio::time::timeout(FLUSHING, flush).await.is_err() {
            tracing::warn!("the ledger was too slow to be told of the last confirmed jobs");
        }
    }

    /// Waits for a first publication, then gathers more for a while. `false`: closing.
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

    /// Takes what is there, up to a full batch.
    fn fill(&mut self, batch: &mut Vec<Publication>) {
        while batch.len() < BATCH {
            match self.confirmed.try_recv() {
                Ok(publication) => batch.push(publication),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
    }

    async fn tell(&self, batch: &mut Vec<Publication>) {
        if let Err(error) = self.ledger.published(batch).await {
            tracing::warn!(%error, jobs = batch.len(), "confirmed jobs not told to the ledger");
            metrics::unconfirmed(batch.len());
        }
        batch.clear();
    }
}
