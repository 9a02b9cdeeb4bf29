//! An error as a client sees it: a problem document (RFC 9457).
//!
//! Every error of this crate becomes a [`Problem`], and only this module turns it into an HTTP response.

use axum::Json;
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use queue::{JobError, JobId, JobState};
use serde::Serialize;

mod from;
mod kind;

pub(crate) use kind::ProblemKind;

/// The value of `Accept-Encoding` in the refusal of another encoding (RFC 9110, section 15.5.16).
pub(crate) const ACCEPTED_ENCODINGS: &str = "gzip, zstd, identity";

/// An error for a client. It is boxed, so that a `Result` without an error stays small.
#[derive(Debug)]
pub(crate) struct Problem(Box<Content>);

#[derive(Debug)]
struct Content {
    kind: ProblemKind,
    detail: String,
    field: Option<String>,
    job_id: Option<JobId>,
    state: Option<JobState>,
    error: Option<JobError>,
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    urn: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a JobError>,
}

impl Problem {
    /// A problem. `detail` is a sentence with the fault and the remedy.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Content { kind, detail: detail.into(), field: None, job_id: None, state: None, error: None }))
    }

    /// The problem of a job that does not exist.
    pub(crate) fn unknown_job(id: &JobId) -> Self {
        let detail = format!("id: there is no job {:?}, or its record has been deleted", id.as_str());
        Self::new(ProblemKind::UnknownJob, detail).field("id").job(id)
    }

    /// The problem of a failure of the gateway, which has been logged.
    pub(crate) fn internal() -> Self {
        Self::new(ProblemKind::Internal, "the gateway failed; its log has the details")
    }

    /// Adds the part of the request that is wrong.
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Adds the job.
    pub(crate) fn job(mut self, id: &JobId) -> Self {
        self.0.job_id = Some(id.clone());
        self
    }

    /// Adds the state of that job, and its error if it has one.
    pub(crate) fn state(mut self, state: JobState, error: Option<JobError>) -> Self {
        self.0.state = Some(state);
        self.0.error = error;
        self
    }

    /// The kind of the problem.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> ProblemKind {
        self.0.kind
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (name, status, title) = self.0.kind.row();
        let document = Document {
            urn: format!("urn:millrace:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: &self.0.detail,
            field: self.0.field.as_deref(),
            job_id: self.0.job_id.as_ref().map(JobId::as_str),
            state: self.0.state.map(JobState::as_str),
            error: self.0.error.as_ref(),
        };
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.0.kind == ProblemKind::UnsupportedEncoding {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED_ENCODINGS));
        }
        use ProblemKind::{Busy, JobNotEnded, NotConfirmed, Unavailable};
        if matches!(self.0.kind, Busy | Unavailable | NotConfirmed | JobNotEnded) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
