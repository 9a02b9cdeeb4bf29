//! The URLs of an installation's broker and ledger, checked together.

use queue::{Error, ErrorKind, Result, RouteError, RouteErrors, Routes};

use crate::url::BackendUrl;

/// Where jobs wait, and where they are accounted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrls {
    broker: BackendUrl,
    ledger: BackendUrl,
    routes: Routes,
}

impl BackendUrls {
    /// Jobs wait in `broker` and are accounted for in `ledger`, where the workers are known too; without one, in the broker.
    pub fn new(broker: BackendUrl, ledger: Option<BackendUrl>) -> Result<Self> {
        let named = ledger.is_some();
        let ledger = ledger.unwrap_or_else(|| broker.clone());
        if !ledger.is_ledger() {
            let why = if named {
                format!("ledger: {ledger} keeps no ledger")
            } else {
                format!("ledger: is missing, and the broker {broker} keeps none")
            };
            let way_out = "name a Redis (redis://HOST), or embedded:FOLDER if all processes are on one machine";
            return Err(Error::new(ErrorKind::Refused, format_args!("{why}: {way_out}")));
        }
        Ok(Self { broker, ledger, routes: Routes::default() })
    }

    /// With names on the broker beside those made from the pools' names. Refused where the broker has no such.
    pub fn with_routes(self, routes: Routes) -> Result<Self, RouteErrors> {
        let wrong = |(key, name): (String, &str)| {
            let why = self.broker.check_route(name).err()?;
            Some(RouteError { key, name: name.to_owned(), why })
        };
        let errors = routes.names().filter_map(wrong).collect();
        RouteErrors::none_or(errors, Self { routes, ..self })
    }

    /// Where jobs wait.
    pub fn broker(&self) -> &BackendUrl {
        &self.broker
    }

    /// Where they are accounted for.
    pub fn ledger(&self) -> &BackendUrl {
        &self.ledger
    }

    /// The topics and queues whose names are not made from the pools' names.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }
}
