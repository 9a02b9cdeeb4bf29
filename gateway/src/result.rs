//! The result of a job, or why there is none.

use axum::body::Body;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Response};
use bytes::Bytes;
use queue::{Blobs, JobId, JobRecord, JobState};

use crate::problem::{Problem, ProblemKind};
use crate::status::JOB_ID_HEADER;

/// The output of a job that succeeded, bytes and media type as the model gave them.
///
/// For every other state a problem: 409 while the job is open; 422 when it failed, since its own input is at fault; 410
/// when it was cancelled, expired or ran out of attempts, since there never will be a result.
pub(crate) async fn response(blobs: &Blobs, record: &JobRecord) -> Result<Response<Body>, Problem> {
    let id = &record.id;
    let (kind, detail) = match record.state {
        JobState::Succeeded => return success(blobs, record).await,
        JobState::Queued | JobState::Leased | JobState::Retry => (
            ProblemKind::JobNotEnded,
            format!("job {id} is {}; ask again, or wait with ?wait=30s", record.state.as_str()),
        ),
        JobState::Failed => (ProblemKind::JobFailed, format!("job {id} failed: {}", why(record))),
        JobState::Dead => {
            (ProblemKind::JobDead, format!("job {id} failed {} times, at last: {}", record.attempts, why(record)))
        }
        JobState::Cancelled => (ProblemKind::JobCancelled, format!("job {id} was cancelled")),
        JobState::Expired => (ProblemKind::JobExpired, format!("job {id} was not started before its deadline")),
    };
    Err(Problem::new(kind, detail).job(id).ended_as(record.state, record.error.clone()))
}

async fn success(blobs: &Blobs, record: &JobRecord) -> Result<Response<Body>, Problem> {
    let Some(output) = &record.output else {
        tracing::error!(job = %record.id, "a job that succeeded has no output");
        return Err(Problem::new(ProblemKind::Internal, "the job succeeded and its output is missing").job(&record.id));
    };
    let bytes = blobs.bytes(&output.body).await.map_err(|error| Problem::from(error).job(&record.id))?;
    Ok(anybodys_bytes(&record.id, &output.media_type, bytes))
}

/// Bytes of a job that came from outside, with their media type.
pub(crate) fn anybodys_bytes(id: &JobId, media_type: &str, bytes: Bytes) -> Response<Body> {
    let media_type =
        HeaderValue::from_str(media_type).unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    // Anybody's bytes, served from this origin: a browser must neither guess at them nor run them.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(JOB_ID_HEADER, id);
    }
    response
}

fn why(record: &JobRecord) -> &str {
    record.error.as_ref().map_or("no reason was given", |error| &error.message)
}
