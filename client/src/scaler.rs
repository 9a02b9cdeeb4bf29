//! The admin address of a scaler: why a pool has its workers, health and metrics.

use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};

use crate::error::Error;
use crate::http::Server;
use crate::tls::Tls;

/// A scaler that does not answer within this time counts as unreachable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A scaler, at its admin address. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct Scaler {
    server: Server,
}

/// The form of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explanation {
    /// As text, for a reader.
    Text,
    /// As JSON, for a program.
    Json,
}

impl Scaler {
    /// The scaler whose admin address is `url`, such as `http://127.0.0.1:9091`. `tls` has no effect on an `http://` URL.
    /// Sends nothing yet.
    pub fn new(url: &str, tls: &Tls) -> Result<Self, Error> {
        Ok(Self { server: Server::new("scaler", url, tls, ANSWER_TIMEOUT)? })
    }

    /// The scaler at `url`, called through `http`, whose connections and time limits the caller has chosen.
    pub fn with_http(url: &str, http: reqwest::Client) -> Result<Self, Error> {
        Ok(Self { server: Server::with_http("scaler", url, http)? })
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// Its last answers about `pool`, with everything that went into them.
    pub async fn explain(&self, pool: &str, form: Explanation) -> Result<String, Error> {
        let accept = match form {
            Explanation::Text => "text/plain",
            Explanation::Json => "application/json",
        };
        let request = self.server.request(Method::GET, self.server.path(&["explain", pool]));
        self.server.text(request.header(ACCEPT, accept)).await
    }

    /// Its answer at a path such as `/readyz` or `/metrics`, whatever the status.
    pub async fn get(&self, path_and_query: &str) -> Result<(StatusCode, String), Error> {
        let response = self.server.answer(self.server.request_to(Method::GET, path_and_query)).await?;
        let status = response.status();
        Ok((status, response.text().await.map_err(|error| self.server.failed(error))?))
    }
}
