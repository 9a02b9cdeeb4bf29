//! A running scaler, and clients of it.

use std::time::Duration;

use anyhow::Context;
use proto::externalscaler::external_scaler_client::ExternalScalerClient;
use reqwest::StatusCode;
use tonic::transport::{Channel, Endpoint};

use crate::{Process, System};

/// The time limit for a connection. It is far longer than needed, so only a fault is slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A running scaler.
pub struct Scaler {
    /// Its process.
    pub process: Process,
    /// The address that KEDA calls, as `host:port`.
    pub address: String,
    admin: client::Scaler,
}

impl Scaler {
    pub(crate) async fn of(process: Process, http: reqwest::Client) -> anyhow::Result<Self> {
        let after = |line: &str, word: &str| {
            line.strip_prefix(word).map(str::to_owned).with_context(|| format!("{line:?} names no address"))
        };
        let address = after(&process.prints("scaler grpc://").await?, "scaler grpc://")?;
        let admin = after(&process.prints("admin http://").await?, "admin ")?;
        Ok(Self { process, address, admin: client::Scaler::with_http(&admin, http)? })
    }

    /// Connects to it in plain text, on a new connection.
    pub async fn connect(&self) -> anyhow::Result<ExternalScalerClient<Channel>> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?.connect_timeout(CONNECT_TIMEOUT);
        Ok(ExternalScalerClient::new(endpoint.connect().await?))
    }

    /// The address for an orchestrator.
    pub fn admin_url(&self) -> &str {
        self.admin.url()
    }

    /// The answer of the admin server at `path`.
    pub async fn admin(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        Ok(self.admin.get(path).await?)
    }

    /// The lines of its metrics, without comments.
    pub async fn metrics(&self) -> anyhow::Result<Vec<String>> {
        let (_, text) = self.admin("/metrics").await?;
        Ok(text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect())
    }

    /// The value of one metric, named with its labels as in `/metrics`; 0 if the metric does not exist yet.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let lines = self.metrics().await?;
        let value = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.map_or(Ok(0.0), str::parse)?)
    }
}

impl System {
    /// Starts a scaler, and waits until it listens.
    pub async fn scaler(&self) -> anyhow::Result<Scaler> {
        Scaler::of(self.start("scaler", &["--admin", "127.0.0.1:0"])?, self.http.clone()).await
    }
}
