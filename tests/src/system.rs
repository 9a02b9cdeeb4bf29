//! A folder with a configuration, and the processes that run in it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use backends::BackendUrls;
use queue::Backend;
use reqwest::{Client, Method, RequestBuilder, Response};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{BrokerKind, BrokerUrls, Process};

/// How long a job may take to end: far more than it needs, so that only a fault is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A system of its own: configuration, data folder, free ports.
pub struct System {
    folder: TempDir,
    urls: Option<BrokerUrls>,
    pub(crate) client: Client,
}

/// A running gateway.
pub struct Gateway {
    /// Its process; `up` if it is one of several services in it.
    pub process: Process,
    /// Where it listens.
    pub url: String,
    client: Client,
}

impl System {
    /// A system configured by `yaml`, with ports of its own and its data beside its configuration.
    pub fn new(yaml: &str) -> anyhow::Result<Self> {
        Self::with(None, yaml)
    }

    /// A system configured by `yaml`, on a broker of this kind: in the shared server, where others do not see it.
    pub fn on(kind: BrokerKind, yaml: &str) -> anyhow::Result<Self> {
        Self::with(kind.urls()?, yaml)
    }

    /// A system configured by `yaml`, on what these URLs name.
    pub fn at(urls: BrokerUrls, yaml: &str) -> anyhow::Result<Self> {
        Self::with(Some(urls), yaml)
    }

    fn with(urls: Option<BrokerUrls>, yaml: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("millrace.yaml"), yaml)?;
        Ok(Self { folder, urls, client: Client::builder().no_proxy().build()? })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a service of it, with `arguments` after its configuration.
    pub fn start(&self, service: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        let mut all = vec![service, "--config", "millrace.yaml"];
        let mut settings = vec!["gateway.listen=127.0.0.1:0".to_owned(), "scaler.listen=127.0.0.1:0".to_owned()];
        if let Some(urls) = &self.urls {
            settings.push(format!("broker={}", urls.broker));
            settings.extend(urls.ledger.iter().map(|ledger| format!("ledger={ledger}")));
        }
        all.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        all.extend(arguments);
        Process::start(self.folder.path(), &all)
    }

    /// Starts a gateway, and waits until it listens.
    pub async fn gateway(&self) -> anyhow::Result<Gateway> {
        self.gateway_of(self.start("gateway", &[])?).await
    }

    /// Starts everything, and waits until its gateway listens.
    pub async fn up(&self) -> anyhow::Result<Gateway> {
        self.gateway_of(self.start("up", &[])?).await
    }

    /// Starts a worker, and waits until it is ready.
    pub async fn worker(&self, pool: &str) -> anyhow::Result<Process> {
        let worker = self.start("worker", &["--pool", pool])?;
        worker.says(" ready ").await?;
        Ok(worker)
    }

    /// Its backend, opened by this process beside the others.
    pub async fn backend(&self) -> anyhow::Result<Backend> {
        let urls = match &self.urls {
            Some(BrokerUrls { broker, ledger }) => {
                let ledger = ledger.as_ref().map(|ledger| ledger.parse()).transpose()?;
                BackendUrls::new(broker.parse()?, ledger)?
            }
            None => BackendUrls::new(format!("embedded:{}", self.folder.path().join("data").display()).parse()?, None)?,
        };
        Ok(backends::open(&urls).await?)
    }

    async fn gateway_of(&self, process: Process) -> anyhow::Result<Gateway> {
        let line = process.says("gateway http://").await?;
        let url = line.strip_prefix("gateway ").with_context(|| format!("{line:?} names no address"))?.to_owned();
        Ok(Gateway { process, url, client: self.client.clone() })
    }
}

impl Gateway {
    /// A request to `path`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Submits a job.
    pub async fn submit(
        &self,
        pool_and_query: &str,
        media_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Response> {
        let (pool, query) = pool_and_query.split_once('?').unwrap_or((pool_and_query, ""));
        let request = self.request(Method::POST, &format!("/v1/pools/{pool}/jobs?{query}"));
        Ok(request.header("content-type", media_type).body(body).send().await?)
    }

    /// Submits a job that must be accepted; its id.
    pub async fn accepted(&self, pool_and_query: &str, media_type: &str, body: Vec<u8>) -> anyhow::Result<String> {
        let response = self.submit(pool_and_query, media_type, body).await?;
        let (status, body) = (response.status(), response.text().await?);
        if status != 202 {
            bail!("not accepted: {status} {body}");
        }
        let job: serde_json::Value = serde_json::from_str(&body)?;
        job["id"].as_str().map(str::to_owned).with_context(|| format!("no id in {body}"))
    }

    /// The status of a job once it has ended.
    pub async fn ended(&self, id: &str) -> anyhow::Result<serde_json::Value> {
        let asking = async {
            loop {
                let response = self.request(Method::GET, &format!("/v1/jobs/{id}?wait=30s")).send().await?;
                let job: serde_json::Value = response.error_for_status()?.json().await?;
                if job["finished_at"].is_string() {
                    return anyhow::Ok(job);
                }
            }
        };
        timeout(PATIENCE, asking).await.with_context(|| format!("job {id} did not end within {PATIENCE:?}"))?
    }
}
