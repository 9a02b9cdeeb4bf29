//! What an error looks like to a client: a problem document (RFC 9457).
//!
//! Every error of this crate becomes a [`Problem`], and this is the one place that turns it into HTTP.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use queue::{ErrorKind, JobError, JobId, JobState};
use serde::Serialize;

use crate::admission::{Refusal, RefusalKind};

/// Which problem it is: the last part of the document's `type`, for programs to decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    UnknownRoute,
    MethodNotAllowed,
    UnknownPool,
    UnknownJob,
    BadId,
    BadPath,
    BadQuery,
    BadOption,
    MalformedJson,
    EmptyBody,
    BodyTooLarge,
    BodyTimeout,
    BodyUnreadable,
    UnsupportedMediaType,
    InvalidInput,
    IdConflict,
    Refused,
    JobNotEnded,
    JobEnded,
    JobFailed,
    JobCancelled,
    JobExpired,
    JobDead,
    JobNotDead,
    RecordNeeded,
    NotConfirmed,
    Unavailable,
    StorageFull,
    Internal,
}

impl ProblemKind {
    /// Name, status and title.
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::UnknownRoute => ("unknown-route", S::NOT_FOUND, "there is nothing at this path"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", S::METHOD_NOT_ALLOWED, "this path does not take this method")
            }
            Self::UnknownPool => ("unknown-pool", S::NOT_FOUND, "no such pool"),
            Self::UnknownJob => ("unknown-job", S::NOT_FOUND, "no such job"),
            Self::BadId => ("bad-id", S::BAD_REQUEST, "not an id of a job"),
            Self::BadPath => ("bad-path", S::BAD_REQUEST, "the path cannot be read"),
            Self::BadQuery => ("bad-query", S::BAD_REQUEST, "the query cannot be used"),
            Self::BadOption => ("bad-option", S::BAD_REQUEST, "an option of the job is wrong"),
            Self::MalformedJson => ("malformed-json", S::BAD_REQUEST, "the body is not JSON"),
            Self::EmptyBody => ("empty-body", S::BAD_REQUEST, "the input is empty"),
            Self::BodyTooLarge => ("body-too-large", S::PAYLOAD_TOO_LARGE, "the body is too large"),
            Self::BodyTimeout => ("body-timeout", S::REQUEST_TIMEOUT, "the body came too slowly"),
            Self::BodyUnreadable => ("body-unreadable", S::BAD_REQUEST, "the body broke off"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "the model does not take this media type")
            }
            Self::InvalidInput => ("invalid-input", S::UNPROCESSABLE_ENTITY, "the input does not fit"),
            Self::IdConflict => ("id-conflict", S::CONFLICT, "the id belongs to another job"),
            Self::Refused => ("refused", S::BAD_REQUEST, "the request was refused"),
            Self::JobNotEnded => ("job-not-ended", S::CONFLICT, "the job has not ended yet"),
            Self::JobEnded => ("job-ended", S::CONFLICT, "the job has ended already"),
            Self::JobFailed => ("job-failed", S::UNPROCESSABLE_ENTITY, "the job failed"),
            Self::JobCancelled => ("job-cancelled", S::GONE, "the job was cancelled"),
            Self::JobExpired => ("job-expired", S::GONE, "the job's deadline passed"),
            Self::JobDead => ("job-dead", S::GONE, "the job has no attempts left"),
            Self::JobNotDead => ("job-not-dead", S::CONFLICT, "the job is neither dead nor failed"),
            Self::RecordNeeded => ("record-needed", S::CONFLICT, "the job's record is still needed"),
            Self::NotConfirmed => ("not-confirmed", S::SERVICE_UNAVAILABLE, "the job is not confirmed yet"),
            Self::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, "the queue did not answer"),
            Self::StorageFull => ("storage-full", S::INSUFFICIENT_STORAGE, "no room is left"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "the gateway failed"),
        }
    }
}

/// An error on its way to a client. Boxed, because it travels as the rare half of a `Result`.
#[derive(Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ProblemKind,
    detail: String,
    field: Option<String>,
    job_id: Option<JobId>,
    state: Option<JobState>,
    error: Option<JobError>,
}

/// The document as it is sent.
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
    /// A problem and the sentence that tells what is wrong and the way out.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, detail: detail.into(), field: None, job_id: None, state: None, error: None }))
    }

    /// Names the part of the request at fault.
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Names the job it speaks of.
    pub(crate) fn job(mut self, id: &JobId) -> Self {
        self.0.job_id = Some(id.clone());
        self
    }

    /// Says where that job stands, and why if it failed.
    pub(crate) fn ended_as(mut self, state: JobState, error: Option<JobError>) -> Self {
        self.0.state = Some(state);
        self.0.error = error;
        self
    }

    /// What could not be stored because `error` came in the way. Whether it was is not known, so the id goes along: a
    /// repetition with it is safe.
    pub(crate) fn unsure(error: queue::Error, id: &JobId) -> Self {
        let unsure = error.kind() == ErrorKind::Unavailable;
        let mut problem = Self::from(error);
        if unsure {
            problem.0.detail = format!(
                "the queue did not confirm job {id}, which may still run; repeating the request with this id is safe"
            );
        }
        problem.job(id)
    }

    /// Which problem it is.
    pub(crate) fn kind(&self) -> ProblemKind {
        self.0.kind
    }
}

impl From<queue::Error> for Problem {
    /// Messages of storage stay in the log: they may name hosts and paths.
    fn from(error: queue::Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => {
                tracing::warn!(error = %error, "queue unavailable");
                Self::new(ProblemKind::Unavailable, "the queue did not answer in time; ask again later")
            }
            ErrorKind::Full => {
                tracing::error!(error = %error, "storage full");
                Self::new(
                    ProblemKind::StorageFull,
                    "the queue has no room left and nothing was stored; ask again when there is room",
                )
            }
            ErrorKind::Conflict => Self::new(ProblemKind::IdConflict, error.to_string()),
            ErrorKind::Refused => Self::new(ProblemKind::Refused, error.to_string()),
            ErrorKind::Incompatible | ErrorKind::Corrupt => {
                tracing::error!(error = %error, "stored data unreadable");
                Self::new(ProblemKind::Internal, "stored data cannot be read; the gateway's log tells more")
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.kind {
            RefusalKind::UnsupportedMediaType => ProblemKind::UnsupportedMediaType,
            RefusalKind::InvalidInput => ProblemKind::InvalidInput,
        };
        Self::new(kind, format!("{}: {}", refusal.field, refusal.reason)).field(refusal.field)
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
        // Strings and numbers only: serialization cannot fail, and an empty body is all that is left if it does.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.0.kind, ProblemKind::Unavailable | ProblemKind::NotConfirmed | ProblemKind::JobNotEnded) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_queue_error_has_its_status() {
        for (kind, status) in [
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Full, 507),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Refused, 400),
            (ErrorKind::Incompatible, 500),
            (ErrorKind::Corrupt, 500),
        ] {
            let response = Problem::from(queue::Error::new(kind, "why")).into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503);
        }
    }

    #[test]
    fn a_refusal_names_its_field() {
        let refusal = Refusal {
            kind: RefusalKind::InvalidInput,
            field: "inputs[0].shape".to_owned(),
            reason: "[1, 2] is not [1, 3]".to_owned(),
        };
        let problem = Problem::from(refusal);
        assert_eq!(problem.kind(), ProblemKind::InvalidInput);
        assert_eq!(problem.0.field.as_deref(), Some("inputs[0].shape"));
        assert_eq!(problem.0.detail, "inputs[0].shape: [1, 2] is not [1, 3]");
    }
}
