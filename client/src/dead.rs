//! Asks a gateway about dead jobs.

use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use queue::{JobId, PoolName};
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;

use super::{Ending, Which};
use crate::http::{gateway_url, innermost};

/// How long after a request the gateway counts as away.
const ANSWER: Duration = Duration::from_secs(30);

/// The most jobs that the gateway lists at once.
const PAGE: usize = 500;

/// A gateway.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    gateway: String,
}

/// What a job is given.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Refused {
    /// The gateway refused it, in its words.
    Told(String),
    /// The gateway did not answer.
    Away(anyhow::Error),
}

impl From<Refused> for anyhow::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Told(reason) => anyhow!(reason),
            Refused::Away(error) => error,
        }
    }
}

#[derive(Deserialize)]
struct Page {
    jobs: Vec<Value>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Purged {
    purged: u64,
    more: bool,
}

/// The parts of a problem document that matter here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
}

impl Client {
    pub(super) fn new(gateway: &str) -> anyhow::Result<Self> {
        let gateway = gateway_url(gateway)?;
        let http = reqwest::Client::builder().timeout(ANSWER).build().context("cannot make an HTTP client")?;
        Ok(Self { http, gateway })
    }

    /// Up to `limit` jobs, those that ended last first, as the gateway tells of them.
    pub(super) async fn list(&self, which: &Which, limit: usize) -> anyhow::Result<Vec<Value>> {
        let mut jobs: Vec<Value> = Vec::new();
        let mut after: Option<String> = None;
        while jobs.len() < limit {
            let page = (limit - jobs.len()).min(PAGE).to_string();
            let mut query = vec![("state", which.state.as_str()), ("limit", &page)];
            query.extend(which.pool.as_ref().map(|pool| ("pool", pool.as_str())));
            query.extend(after.as_ref().map(|after| ("after", after.as_str())));
            let page: Page = self.ask(self.http.get(format!("{}/v1/dead", self.gateway)).query(&query)).await?;
            jobs.extend(page.jobs);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(jobs)
    }

    /// The ids of all of them.
    pub(super) async fn ids(&self, which: &Which) -> anyhow::Result<Vec<JobId>> {
        let jobs = self.list(which, usize::MAX).await?;
        let id =
            |job: &Value| serde_json::from_value(job["id"].clone()).context("the gateway named a job without an id");
        jobs.iter().map(id).collect()
    }

    /// A job as the gateway tells of it.
    pub(super) async fn job(&self, id: &JobId) -> anyhow::Result<Value> {
        self.ask(self.http.get(self.url(id, ""))).await
    }

    pub(super) async fn input(&self, id: &JobId) -> anyhow::Result<Input> {
        let response = self.send(self.http.get(self.url(id, "/input"))).await?;
        let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        Ok(Input { media_type, bytes: response.bytes().await.map_err(|error| self.away(&error))? })
    }

    pub(super) async fn requeue(&self, id: &JobId, input: Option<&Input>) -> Result<(), Refused> {
        let mut request = self.http.post(self.url(id, "/requeue"));
        if let Some(input) = input {
            request = request.header("content-type", &input.media_type).body(input.bytes.clone());
        }
        self.send(request).await.map(drop)
    }

    pub(super) async fn forget(&self, id: &JobId) -> Result<(), Refused> {
        self.send(self.http.delete(self.url(id, ""))).await.map(drop)
    }

    /// How many jobs of the pool were forgotten.
    pub(super) async fn purge(&self, pool: &PoolName, state: Ending) -> anyhow::Result<u64> {
        let query = [("pool", pool.as_str()), ("state", state.as_str())];
        let mut forgotten = 0;
        loop {
            let request = self.http.delete(format!("{}/v1/dead", self.gateway)).query(&query);
            let Purged { purged, more } = self.ask(request).await?;
            forgotten += purged;
            if !more {
                return Ok(forgotten);
            }
        }
    }

    fn url(&self, id: &JobId, rest: &str) -> String {
        format!("{}/v1/jobs/{id}{rest}", self.gateway)
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let bytes = self.send(request).await?.bytes().await.map_err(|error| self.away(&error))?;
        serde_json::from_slice(&bytes).context("the gateway's answer cannot be read")
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Refused> {
        let response = request.send().await.map_err(|error| Refused::Away(self.away(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // Whatever stands between may answer as well, in words of its own.
        let problem: Problem = response.json().await.unwrap_or_default();
        let told = [problem.detail, problem.title].into_iter().find(|text| !text.is_empty());
        let told = told.unwrap_or_else(|| format!("the gateway answered {status}"));
        if status.is_server_error() { Err(Refused::Away(anyhow!(told))) } else { Err(Refused::Told(told)) }
    }

    fn away(&self, error: &reqwest::Error) -> anyhow::Error {
        anyhow!("the gateway at {} cannot be reached: {}", self.gateway, innermost(error))
    }
}
