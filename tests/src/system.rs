//! A folder with a configuration, and the processes that run in it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use backends::BackendUrls;
use client::NewJob;
use queue::Backend;
use reqwest::{Method, RequestBuilder, Response};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{BrokerKind, BrokerUrls, Process};

/// The time limit for a job to end. It is far longer than needed, so only a fault is slow.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time that one request waits for the end of a job.
const LONG_POLL: Duration = Duration::from_secs(30);

/// A system for one test: a configuration, a data folder, free ports.
pub struct System {
    folder: TempDir,
    urls: Option<BrokerUrls>,
    pub(crate) http: reqwest::Client,
}

/// A running gateway.
pub struct Gateway {
    /// Its process. With `up`, other services run in the same process.
    pub process: Process,
    /// Its URL.
    pub url: String,
    client: client::Gateway,
}

impl System {
    /// A system with the configuration `yaml`, free ports, and its data beside the configuration.
    pub fn new(yaml: &str) -> anyhow::Result<Self> {
        Self::with(None, yaml)
    }

    /// A system with the configuration `yaml` on a shared server of this kind, isolated by a prefix.
    pub fn on(kind: BrokerKind, yaml: &str) -> anyhow::Result<Self> {
        Self::with(kind.urls()?, yaml)
    }

    /// A system with the configuration `yaml` on the servers that `urls` names.
    pub fn at(urls: BrokerUrls, yaml: &str) -> anyhow::Result<Self> {
        Self::with(Some(urls), yaml)
    }

    fn with(urls: Option<BrokerUrls>, yaml: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("millrace.yaml"), yaml)?;
        Ok(Self { folder, urls, http: client::plain_http()?.no_proxy().build()? })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a service, with `arguments` after the configuration.
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
        self.listening(self.start("gateway", &[])?).await
    }

    /// Starts everything, and waits until its gateway listens.
    pub async fn up(&self) -> anyhow::Result<Gateway> {
        self.listening(self.start("up", &[])?).await
    }

    /// Starts a worker, and waits until it is ready.
    pub async fn worker(&self, pool: &str) -> anyhow::Result<Process> {
        let worker = self.start("worker", &["--pool", pool])?;
        worker.prints(" ready ").await?;
        Ok(worker)
    }

    /// The backend of the system, opened by the test itself.
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

    async fn listening(&self, process: Process) -> anyhow::Result<Gateway> {
        let line = process.prints("gateway http://").await?;
        let url = line.strip_prefix("gateway ").with_context(|| format!("{line:?} names no address"))?.to_owned();
        let client = client::Gateway::with_http(&url, self.http.clone())?;
        Ok(Gateway { process, url, client })
    }
}

impl Gateway {
    /// A request to `path`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, path)
    }

    /// Submits a job to the pool, with the query. Returns the answer with any status.
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

    /// Submits a job that must be accepted. Returns its id.
    pub async fn accepted(&self, pool: &str, media_type: &str, body: Vec<u8>) -> anyhow::Result<String> {
        let (pool, media_type) = (pool.to_owned(), media_type.to_owned());
        let job = NewJob { pool, media_type, body: body.into(), class: None, deadline: None };
        let accepted = self.client.submit(None, &job).await.context("not accepted")?;
        ensure!(accepted.is_new, "the id {} was there already", accepted.id);
        Ok(accepted.id)
    }

    /// Waits for the end of a job. Returns its status.
    pub async fn ended(&self, id: &str) -> anyhow::Result<serde_json::Value> {
        let waiting = async {
            loop {
                let job = self.client.wait(id, LONG_POLL).await?;
                if job["finished_at"].is_string() {
                    return anyhow::Ok(job);
                }
            }
        };
        timeout(TIMEOUT, waiting).await.with_context(|| format!("job {id} did not end within {TIMEOUT:?}"))?
    }
}
