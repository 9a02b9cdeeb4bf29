//! The status of a job, as a client sees it.

use axum::Json;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use queue::{Attempt, Class, Job, JobError, JobId, JobRecord, JobState, PoolName};
use serde::Serialize;

use crate::paths;

/// The response header with the id of the job.
pub const JOB_ID_HEADER: &str = "millrace-job-id";

/// The status of a job. Fields without a value are left out.
#[derive(Debug, Serialize)]
pub(crate) struct JobStatus<'a> {
    id: &'a JobId,
    pool: &'a PoolName,
    class: Class,
    state: &'static str,
    attempts: u32,
    max_attempts: u32,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a JobError>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<FailedAttempt<'a>>,
    links: Links,
}

/// One attempt that failed.
#[derive(Debug, Serialize)]
struct FailedAttempt<'a> {
    number: u32,
    worker: &'a str,
    started_at: Timestamp,
    ended_at: Timestamp,
    error: &'a JobError,
}

impl<'a> From<&'a Attempt> for FailedAttempt<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            worker: attempt.worker.as_str(),
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            error: &attempt.error,
        }
    }
}

/// The paths of the job, relative to the gateway.
#[derive(Debug, Serialize)]
struct Links {
    status: String,
    result: String,
    cancel: String,
}

impl Links {
    fn of(id: &JobId) -> Self {
        let status = paths::job(id);
        Self { result: [&status, "/result"].concat(), cancel: [&status, "/cancel"].concat(), status }
    }
}

impl<'a> From<&'a JobRecord> for JobStatus<'a> {
    fn from(record: &'a JobRecord) -> Self {
        Self {
            id: &record.id,
            pool: &record.pool,
            class: record.class,
            state: record.state.as_str(),
            attempts: record.attempts,
            max_attempts: record.max_attempts,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            deadline_at: record.deadline_at,
            error: record.error.as_ref(),
            history: record.history.iter().map(FailedAttempt::from).collect(),
            links: Links::of(&record.id),
        }
    }
}

/// A job that was submitted just now: its record has not been read.
impl<'a> From<&'a Job> for JobStatus<'a> {
    fn from(job: &'a Job) -> Self {
        Self {
            id: &job.id,
            pool: &job.pool,
            class: job.class,
            state: JobState::Queued.as_str(),
            attempts: 0,
            max_attempts: job.max_attempts,
            created_at: job.created_at,
            started_at: None,
            finished_at: None,
            deadline_at: job.deadline_at,
            error: None,
            history: Vec::new(),
            links: Links::of(&job.id),
        }
    }
}

impl JobStatus<'_> {
    /// The status as a response.
    pub(crate) fn response(self, status: StatusCode) -> Response {
        let mut response = (status, Json(&self)).into_response();
        if let Ok(id) = HeaderValue::from_str(self.id.as_str()) {
            response.headers_mut().insert(JOB_ID_HEADER, id);
        }
        response
    }

    /// The status as a response to a submission, with the path of the job in `Location`.
    pub(crate) fn response_with_location(self, status: StatusCode) -> Response {
        // An id is plain ASCII, so the path is a valid header value.
        let location = HeaderValue::from_str(&self.links.status);
        let mut response = self.response(status);
        if let Ok(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}
