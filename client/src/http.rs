//! Requests to a server, and its answers or errors.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::address::Address;
use crate::error::{Error, Refusal};
use crate::fault::TlsFault;
use crate::tls::{Tls, plain_http};

/// A server behind an address.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Its name in errors.
    name: &'static str,
    http: reqwest::Client,
    address: Address,
}

/// The parts of a problem document that matter here. A proxy may answer too, with a document of another form.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    state: Option<String>,
}

impl Server {
    /// A server that counts as unreachable if it does not answer within `timeout`. This call sends nothing.
    pub(crate) fn new(name: &'static str, url: &str, tls: &Tls, timeout: Duration) -> Result<Self, Error> {
        let address = Address::parse(url)?;
        let http = if address.is_https() { tls.http()? } else { plain_http()? };
        let http = http.tcp_nodelay(true).timeout(timeout).build().map_err(Error::Client)?;
        Ok(Self { name, http, address })
    }

    /// A server that is called through `http`, whose connections and time limits the caller has chosen.
    pub(crate) fn with_http(name: &'static str, url: &str, http: reqwest::Client) -> Result<Self, Error> {
        Ok(Self { name, http, address: Address::parse(url)? })
    }

    pub(crate) fn url(&self) -> &str {
        self.address.as_str()
    }

    /// The URL of a path; each segment is encoded.
    pub(crate) fn path(&self, segments: &[&str]) -> Url {
        self.address.path(segments)
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// A request to a path that is encoded already.
    pub(crate) fn request_to(&self, method: Method, path_and_query: &str) -> RequestBuilder {
        self.http.request(method, self.address.join(path_and_query))
    }

    /// The answer, whatever its status.
    pub(crate) async fn answer(&self, request: RequestBuilder) -> Result<Response, Error> {
        request.send().await.map_err(|error| self.failed(error))
    }

    /// The answer; an error status is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = self.answer(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await.into()) }
    }

    /// The answer as JSON; an error status is an error.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request).await?;
        let bytes = response.bytes().await.map_err(|error| self.failed(error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.unreadable(error.to_string()))
    }

    /// The answer as text; an error status is an error, whose reason is the text.
    pub(crate) async fn text(&self, request: RequestBuilder) -> Result<String, Error> {
        let response = self.answer(request).await?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let text = response.text().await.map_err(|error| self.failed(error))?;
        if status.is_success() {
            return Ok(text);
        }
        let reason = format!("the {} answered {status}: {}", self.name, text.trim());
        Err(Box::new(Refusal { status, reason, state: None, retry_after }).into())
    }

    /// The refusal behind an error status.
    pub(crate) async fn refused(&self, response: Response) -> Box<Refusal> {
        let (status, retry_after) = (response.status(), retry_after(&response));
        let problem: Problem = response.json().await.unwrap_or_default();
        let reason = [problem.detail, problem.title].into_iter().find(|text| !text.is_empty());
        let reason = reason.unwrap_or_else(|| format!("the {} answered {status}", self.name));
        Box::new(Refusal { status, reason, state: problem.state, retry_after })
    }

    pub(crate) fn failed(&self, cause: reqwest::Error) -> Error {
        if cause.is_builder() {
            return Error::Request(cause);
        }
        if let Some(fault) = TlsFault::of(&cause) {
            return Error::Tls { server: self.name, url: self.url().to_owned(), fault };
        }
        Error::Unreachable { server: self.name, url: self.url().to_owned(), cause }
    }

    pub(crate) fn unreadable(&self, reason: String) -> Error {
        Error::Unreadable { server: self.name, reason }
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
