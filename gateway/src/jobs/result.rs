//! The result of a job, or the problem of a job without one.

use axum::body::Body;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Response};
use bytes::Bytes;
use queue::{Blobs, JobId, JobRecord, JobState};

use crate::http::job_request::UNKNOWN_MEDIA_TYPE;
use crate::http::problem::{Problem, ProblemKind};
use crate::jobs::status::JOB_ID_HEADER;

/// The output of a job that succeeded, bytes and media type as the model returned them.
///
/// Any other state is a problem. The status is 409 while the job is open. It is 422 if the job failed, because its
/// input is wrong. It is 410 if the job was cancelled, expired or is dead, because it will never have a result.
pub(crate) async fn response(blobs: &Blobs, record: &JobRecord) -> Result<Response<Body>, Problem> {
    let id = &record.id;
    let (kind, detail) = match record.state {
        JobState::Succeeded => return output(blobs, record).await,
        JobState::Queued | JobState::Leased | JobState::Retry => (
            ProblemKind::JobNotEnded,
            format!("job {id} is {}; try again, or wait with ?wait=30s", record.state.as_str()),
        ),
        JobState::Failed => (ProblemKind::JobFailed, format!("job {id} failed: {}", reason(record))),
        JobState::Dead => {
            let detail = format!("job {id} failed {} times; the last error: {}", record.attempts, reason(record));
            (ProblemKind::JobDead, detail)
        }
        JobState::Cancelled => (ProblemKind::JobCancelled, format!("job {id} was cancelled")),
        JobState::Expired => (ProblemKind::JobExpired, format!("job {id} was not started before its deadline")),
    };
    Err(Problem::new(kind, detail).job(id).state(record.state, record.error.clone()))
}

async fn output(blobs: &Blobs, record: &JobRecord) -> Result<Response<Body>, Problem> {
    let Some(output) = &record.output else {
        tracing::error!(job = %record.id, "a job that succeeded has no output");
        return Err(Problem::new(ProblemKind::Internal, "the job succeeded but its output is missing").job(&record.id));
    };
    let bytes = blobs.bytes(&output.body).await.map_err(|error| Problem::from(error).job(&record.id))?;
    Ok(untrusted_bytes(&record.id, &output.media_type, bytes))
}

/// An input or output of a job, with its media type.
pub(crate) fn untrusted_bytes(id: &JobId, media_type: &str, bytes: Bytes) -> Response<Body> {
    let media_type = HeaderValue::from_str(media_type).unwrap_or_else(|_| HeaderValue::from_static(UNKNOWN_MEDIA_TYPE));
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    // Any client may have sent these bytes, and the gateway serves them. So a browser must not guess their type or
    // execute them.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(JOB_ID_HEADER, id);
    }
    response
}

fn reason(record: &JobRecord) -> &str {
    record.error.as_ref().map_or("no reason was given", |error| &error.message)
}
