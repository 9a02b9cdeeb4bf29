//! The URLs of an installation's broker and ledger, checked together.

use std::time::Duration;

use queue::{DEAD_RETENTION, Error, ErrorKind, Result, RouteError, RouteErrors, Routes};

use crate::url::BackendUrl;

/// The URLs of the broker and of the ledger, with the routes of all pools, and how long the ledger keeps dead jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrls {
    broker: BackendUrl,
    ledger: BackendUrl,
    routes: Routes,
    dead_retention: Duration,
}

impl BackendUrls {
    /// The broker at `broker`, with ledger and roster at `ledger`. `None`: the broker has them too.
    pub fn new(broker: BackendUrl, ledger: Option<BackendUrl>) -> Result<Self> {
        let named = ledger.is_some();
        let ledger = ledger.unwrap_or_else(|| broker.clone());
        if !ledger.is_ledger() {
            let why = if named {
                format!("ledger: {ledger} has no ledger")
            } else {
                format!("ledger: is missing, and the broker {broker} has none")
            };
            let way_out = "name a Redis (redis://HOST), or embedded:FOLDER if all processes are on one machine";
            return Err(Error::new(ErrorKind::Refused, format_args!("{why}: {way_out}")));
        }
        Ok(Self { broker, ledger, routes: Routes::default(), dead_retention: DEAD_RETENTION })
    }

    /// Adds the routes. They are rejected if the broker does not support topics or queues with other names.
    pub fn with_routes(self, routes: Routes) -> Result<Self, RouteErrors> {
        let wrong = |(key, name): (String, &str)| {
            let why = self.broker.check_route(name).err()?;
            Some(RouteError { key, name: name.to_owned(), why })
        };
        let errors = routes.names().filter_map(wrong).collect();
        RouteErrors::none_or(errors, Self { routes, ..self })
    }

    /// Sets the least time for which the ledger keeps the dead and failed jobs that this process ends.
    pub fn with_dead_retention(self, dead_retention: Duration) -> Self {
        Self { dead_retention, ..self }
    }

    /// The URL of the broker.
    pub fn broker(&self) -> &BackendUrl {
        &self.broker
    }

    /// The URL of the ledger and roster.
    pub fn ledger(&self) -> &BackendUrl {
        &self.ledger
    }

    pub(crate) fn dead_retention(&self) -> Duration {
        self.dead_retention
    }

    /// The topics and queues whose names do not follow from the names of pools.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }
}
