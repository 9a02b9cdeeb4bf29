//! The result of a job, or the problem of a job without one.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Response};
use futures::TryStreamExt;
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
    untrusted_bytes(blobs, &record.id, &output.media_type, &output.body).await
}

/// An input or output of a job, with its media type. It may be larger than the memory, so it is not read as a whole.
pub(crate) async fn untrusted_bytes(
    blobs: &Blobs,
    id: &JobId,
    media_type: &str,
    body: &queue::Body,
) -> Result<Response<Body>, Problem> {
    let mut length = None;
    let body = match body {
        queue::Body::Inline(bytes) => Body::from(bytes.clone()),
        body => {
            let (bytes, pieces) = blobs.stream(body).await.map_err(|error| Problem::from(error).job(id))?;
            let id = id.clone();
            let pieces = pieces.inspect_err(move |error| tracing::warn!(%error, job = %id, "an answer was cut off"));
            length = Some(HeaderValue::from(bytes));
            Body::from_stream(pieces)
        }
    };
    let media_type = HeaderValue::from_str(media_type).unwrap_or_else(|_| HeaderValue::from_static(UNKNOWN_MEDIA_TYPE));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.extend(length.map(|length| (CONTENT_LENGTH, length)));
    headers.insert(CONTENT_TYPE, media_type);
    // Any client may have sent these bytes, and the gateway serves them. So a browser must not guess their type or
    // execute them.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(JOB_ID_HEADER, id);
    }
    Ok(response)
}

fn reason(record: &JobRecord) -> &str {
    record.error.as_ref().map_or("no reason was given", |error| &error.message)
}
