//! Jobs that ended without success: list them, requeue them, delete them.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::gateway::{Gateway, Payload};

/// The largest page that the gateway returns.
const PAGE: usize = 500;

/// How a job ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadEnding {
    /// No attempt is left.
    Dead,
    /// The job itself was at fault.
    Failed,
}

/// Selects jobs by their state and their pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadJobs {
    /// How they ended.
    pub ending: BadEnding,
    /// Their pool; every pool if it is `None`.
    pub pool: Option<String>,
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

impl BadEnding {
    /// The name of the job's state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Failed => "failed",
        }
    }
}

impl Gateway {
    /// The records of at most `limit` jobs, the latest ending first.
    pub async fn dead_jobs(&self, which: &DeadJobs, limit: usize) -> Result<Vec<Value>, Error> {
        let mut jobs: Vec<Value> = Vec::new();
        let mut after: Option<String> = None;
        while jobs.len() < limit {
            let page = (limit - jobs.len()).min(PAGE).to_string();
            let mut query = vec![("state", which.ending.as_str()), ("limit", &page)];
            query.extend(which.pool.as_ref().map(|pool| ("pool", pool.as_str())));
            query.extend(after.as_ref().map(|after| ("after", after.as_str())));
            let request = self.server.request(Method::GET, self.server.path(&["v1", "dead"])).query(&query);
            let page: Page = self.server.json(request).await?;
            jobs.extend(page.jobs);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(jobs)
    }

    /// Runs a dead or failed job again, with another input if one is given.
    pub async fn requeue(&self, id: &str, input: Option<&Payload>) -> Result<(), Error> {
        let mut request = self.server.request(Method::POST, self.job_url(id, Some("requeue")));
        if let Some(Payload { media_type, bytes }) = input {
            request = request.header(CONTENT_TYPE, media_type).body(Bytes::clone(bytes));
        }
        self.server.send(request).await.map(drop)
    }

    /// Deletes the record of a dead or failed job.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        self.server.send(self.server.request(Method::DELETE, self.job_url(id, None))).await.map(drop)
    }

    /// Deletes the records of all jobs of `pool` that ended in this way. Returns their number.
    pub async fn purge(&self, pool: &str, ending: BadEnding) -> Result<u64, Error> {
        let query = [("pool", pool), ("state", ending.as_str())];
        let mut deleted = 0;
        loop {
            let request = self.server.request(Method::DELETE, self.server.path(&["v1", "dead"])).query(&query);
            let Purged { purged, more } = self.server.json(request).await?;
            deleted += purged;
            if !more {
                return Ok(deleted);
            }
        }
    }
}
