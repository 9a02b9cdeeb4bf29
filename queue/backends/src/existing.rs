//! The parts of a backend that exist already.

use std::sync::Arc;

use queue::{Backend, Broker, Clock, Ledger, Result, Risk, Roster};

use crate::open::{open_broker, open_ledger};
use crate::url::BackendUrl;
use crate::urls::BackendUrls;

/// The parts of a [`Backend`] that exist already, for inspection. No data file is created or converted.
#[derive(Clone, Default)]
pub struct Existing {
    /// The broker. `None`: its file does not exist or has an old version, so the first start creates or converts it.
    pub broker: Option<Arc<dyn Broker>>,
    /// The ledger. `None`: as for the broker.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// The roster. `None`: as for the broker.
    pub roster: Option<Arc<dyn Roster>>,
    /// The file that the first start creates or converts, and the risks of its folder.
    pub risks: Vec<Risk>,
}

impl Existing {
    /// Opens the existing parts. Like [`crate::open()`] it does not wait for a server.
    pub async fn open(urls: &BackendUrls) -> Result<Self> {
        let (clock, mut existing) = (Clock::default(), Self::default());
        let (broker, ledger) = (urls.broker(), urls.ledger());
        if existing.is_there(ledger)? {
            let kept = open_ledger(ledger, urls, clock.clone())?;
            (existing.ledger, existing.roster) = (Some(kept.ledger), Some(kept.roster));
            existing.broker = (broker == ledger).then_some(kept.broker);
        }
        if broker != ledger && existing.is_there(broker)? {
            existing.broker = Some(open_broker(urls, clock)?);
        }
        Ok(existing)
    }

    fn is_there(&mut self, url: &BackendUrl) -> Result<bool> {
        let BackendUrl::Embedded { folder, .. } = url else { return Ok(true) };
        let risks = queue_embedded::risks_before_use(folder)?;
        let is_there = risks.is_none();
        self.risks.extend(risks.into_iter().flatten());
        Ok(is_there)
    }
}

impl From<Backend> for Existing {
    fn from(Backend { broker, ledger, roster }: Backend) -> Self {
        Self { broker: Some(broker), ledger: Some(ledger), roster: Some(roster), risks: Vec::new() }
    }
}
