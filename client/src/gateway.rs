//! A gateway: submit a job, read its status, its input and its result.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::http::Server;
use crate::tls::Tls;

/// A gateway that does not answer within this time counts as unreachable. It is longer than the longest long poll of
/// this crate.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A gateway. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub(crate) server: Server,
}

/// A job to submit.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The pool that runs it.
    pub pool: String,
    /// The media type of its input.
    pub media_type: String,
    /// Its input.
    pub body: Bytes,
    /// `premium`, `standard` or `batch`; the gateway's default if it is `None`.
    pub class: Option<String>,
    /// How long it may wait to be started; the pool's own deadline if it is `None`.
    pub deadline: Option<Duration>,
}

/// A job that the gateway has accepted: it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub id: String,
    /// Whether this request created the job. `false`: the gateway already had a job with the same id.
    pub is_new: bool,
}

/// An input or an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

#[derive(Deserialize)]
struct Submitted {
    id: String,
}

impl Gateway {
    /// The gateway at `url`, such as `http://127.0.0.1:8080`. `tls` has no effect on an `http://` URL. Sends nothing yet.
    pub fn new(url: &str, tls: &Tls) -> Result<Self, Error> {
        Ok(Self { server: Server::new("gateway", url, tls, ANSWER_TIMEOUT)? })
    }

    /// The gateway at `url`, called through `http`, whose connections and time limits the caller has chosen.
    pub fn with_http(url: &str, http: reqwest::Client) -> Result<Self, Error> {
        Ok(Self { server: Server::with_http("gateway", url, http)? })
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// A request that the caller completes, to `path_and_query`, which must be encoded already.
    pub fn request(&self, method: Method, path_and_query: &str) -> RequestBuilder {
        self.server.request_to(method, path_and_query)
    }

    /// Submits a job once. If the caller chooses the `id`, a repeated request submits the same job.
    pub async fn submit(&self, id: Option<&str>, job: &NewJob) -> Result<Accepted, Error> {
        let response = self.server.send(self.submission(id, job)).await?;
        let is_new = response.status() == StatusCode::ACCEPTED;
        let bytes = response.bytes().await.map_err(|error| self.server.failed(error))?;
        let submitted = serde_json::from_slice(&bytes);
        let Submitted { id } = submitted.map_err(|error| self.server.unreadable(error.to_string()))?;
        Ok(Accepted { id, is_new })
    }

    pub(crate) fn submission(&self, id: Option<&str>, job: &NewJob) -> RequestBuilder {
        let url = self.server.path(&["v1", "pools", &job.pool, "jobs"]);
        let mut query: Vec<(&str, String)> = Vec::new();
        query.extend(id.map(|id| ("id", id.to_owned())));
        query.extend(job.class.clone().map(|class| ("class", class)));
        query.extend(job.deadline.map(|deadline| ("deadline", period(deadline))));
        let request = self.server.request(Method::POST, url).query(&query);
        request.header(CONTENT_TYPE, &job.media_type).body(job.body.clone())
    }

    /// The status document of a job.
    pub async fn job(&self, id: &str) -> Result<Value, Error> {
        self.server.json(self.server.request(Method::GET, self.job_url(id, None))).await
    }

    /// The status document of a job when the job has ended, or after the time `wait`. The gateway limits this time.
    pub async fn wait(&self, id: &str, wait: Duration) -> Result<Value, Error> {
        let request = self.server.request(Method::GET, self.job_url(id, None));
        self.server.json(request.query(&[("wait", period(wait))])).await
    }

    /// Cancels a job. Returns its status document.
    pub async fn cancel(&self, id: &str) -> Result<Value, Error> {
        self.server.json(self.server.request(Method::POST, self.job_url(id, Some("cancel")))).await
    }

    /// The result of a job. If the job has none, the error names its state.
    pub async fn result(&self, id: &str) -> Result<Payload, Error> {
        let response = self.server.send(self.server.request(Method::GET, self.job_url(id, Some("result")))).await?;
        self.payload(response).await
    }

    /// The input of a job.
    pub async fn input(&self, id: &str) -> Result<Payload, Error> {
        let response = self.server.send(self.server.request(Method::GET, self.job_url(id, Some("input")))).await?;
        self.payload(response).await
    }

    pub(crate) async fn payload(&self, response: Response) -> Result<Payload, Error> {
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let bytes = response.bytes().await.map_err(|error| self.server.failed(error))?;
        Ok(Payload { media_type, bytes })
    }

    pub(crate) fn job_url(&self, id: &str, part: Option<&str>) -> reqwest::Url {
        let segments = ["v1", "jobs", id].into_iter().chain(part);
        self.server.path(&segments.collect::<Vec<_>>())
    }
}

/// A length of time as the gateway reads it.
pub(crate) fn period(duration: Duration) -> String {
    if duration.subsec_nanos().is_multiple_of(1_000_000) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{}ns", duration.as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_unit_that_loses_nothing() {
        assert_eq!(period(Duration::from_secs(90)), "90000ms");
        assert_eq!(period(Duration::new(1, 5)), "1000000005ns");
    }
}
