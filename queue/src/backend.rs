//! What a URL names, opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::broker::embedded::EmbeddedBroker;
use crate::ledger::embedded::EmbeddedLedger;
use crate::roster::embedded::EmbeddedRoster;
use crate::store::{Store, StoreOptions};
use crate::{Broker, Clock, Error, ErrorKind, Ledger, Result, Roster};

/// Where jobs wait and are accounted for: broker, ledger and roster.
#[derive(Clone)]
pub struct Backend {
    /// Where jobs wait.
    pub broker: Arc<dyn Broker>,
    /// What became of them.
    pub ledger: Arc<dyn Ledger>,
    /// The workers alive.
    pub roster: Arc<dyn Roster>,
}

/// Names a backend: `embedded:FOLDER`, with `?max_size=BYTES` to bound the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BackendUrl {
    /// A file in a folder of this machine, shared by its processes.
    Embedded {
        /// The folder, relative to the working folder unless absolute.
        folder: PathBuf,
        /// The most bytes the data file may have; then writes fail as [`ErrorKind::Full`].
        max_size_bytes: Option<u64>,
    },
}

impl Backend {
    /// Opens broker, ledger and roster. Must be called within a tokio runtime, where their background tasks live.
    pub async fn open(url: &BackendUrl) -> Result<Self> {
        Self::open_with_clock(url, Clock::default()).await
    }

    /// As [`Backend::open`], going by `clock`.
    pub async fn open_with_clock(url: &BackendUrl, clock: Clock) -> Result<Self> {
        match url {
            BackendUrl::Embedded { folder, max_size_bytes } => {
                let options = StoreOptions { folder: folder.clone(), max_size_bytes: *max_size_bytes };
                Ok(Self::of_store(&Store::open(&options, clock)?))
            }
        }
    }

    pub(crate) fn of_store(store: &Store) -> Self {
        Self {
            broker: Arc::new(EmbeddedBroker::new(store.clone())),
            ledger: Arc::new(EmbeddedLedger::new(store.clone())),
            roster: Arc::new(EmbeddedRoster::new(store.clone())),
        }
    }
}

impl FromStr for BackendUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why: &str| Err(Error::new(ErrorKind::Refused, format_args!("{text:?} {why}")));
        let Some((scheme, rest)) = text.split_once(':') else {
            return refused("is not a backend URL: write embedded:FOLDER");
        };
        if scheme != "embedded" {
            return refused("names an unknown backend: the known one is embedded:FOLDER");
        }
        let (folder, query) = rest.split_once('?').unwrap_or((rest, ""));
        let folder = folder.strip_prefix("//").unwrap_or(folder);
        if folder.is_empty() {
            return refused("names no folder: write embedded:./data");
        }
        let mut max_size_bytes = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').map(|(key, value)| (key, value.parse::<u64>())) {
                Some(("max_size", Ok(bytes))) if bytes > 0 => max_size_bytes = Some(bytes),
                Some(("max_size", _)) => return refused("has a max_size that is not a number of bytes above 0"),
                _ => return refused("has an unknown option: the known one is max_size=BYTES"),
            }
        }
        Ok(Self::Embedded { folder: folder.into(), max_size_bytes })
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { folder, max_size_bytes } => {
                write!(f, "embedded:{}", folder.display())?;
                max_size_bytes.map_or(Ok(()), |bytes| write!(f, "?max_size={bytes}"))
            }
        }
    }
}

impl TryFrom<String> for BackendUrl {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BackendUrl> for String {
    fn from(url: BackendUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_url_is_read_and_written_alike() {
        for text in ["embedded:./data", "embedded:/var/lib/millrace", "embedded:data?max_size=1048576"] {
            assert_eq!(text.parse::<BackendUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_backend_url_is_refused_with_the_way_out() {
        for (text, way_out) in [
            ("data", "embedded:FOLDER"),
            ("mysql://host", "embedded:FOLDER"),
            ("embedded:", "embedded:./data"),
            ("embedded:d?max_size=0", "above 0"),
            ("embedded:d?max_size=lots", "above 0"),
            ("embedded:d?colour=red", "max_size=BYTES"),
        ] {
            let error = text.parse::<BackendUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(way_out), "{error}");
        }
    }
}
