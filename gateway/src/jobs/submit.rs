//! `POST /v1/pools/{pool}/jobs`: submits a job.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::TryFutureExt;
use queue::JobRecord;

use crate::aside;
use crate::http::extract::PoolPath;
use crate::http::job_request::JobRequest;
use crate::http::problem::Problem;
use crate::http::{body, prefer, trace};
use crate::intake::{Accepted, Submission};
use crate::jobs::cleanup::run_to_end;
use crate::jobs::status::JobStatus;
use crate::jobs::{result, wait};
use crate::state::{GatewayState, SharedState};

pub(crate) async fn submit(
    State(gateway): State<SharedState>,
    PoolPath(pool): PoolPath,
    request: Request,
) -> Result<Response, Problem> {
    // An unknown pool is refused before its body is read.
    gateway.intake.pool(&pool)?;
    let (parts, body) = request.into_parts();
    let (bytes, reserved) = body::read(&parts.headers, body, &gateway.settings, &gateway.budget).await?;
    let JobRequest { options, media_type, media_type_field, bytes } =
        read_request(&parts.uri, &parts.headers, bytes).await?;
    let trace_parent = trace::context(&parts.headers);
    let is_inline = gateway.blobs.is_inline(bytes.len());
    // The wait for the result holds no body.
    let submission = Submission { pool, options, media_type, bytes, trace_parent, room: reserved.into_permit() };
    let accepting = Arc::clone(&gateway);
    // Boxed, because it is large and would be moved between the layers with this handler.
    let accepting = Box::pin(async move {
        let accepted = accepting.intake.accept(submission).await;
        accepted.map_err(|error| error.with_media_type_field(media_type_field))
    });
    // A submission without a blob leaves nothing behind if this handler is dropped.
    let accepted = if is_inline { accepting.await? } else { run_to_end(accepting.map_err(Problem::from)).await? };
    Ok(answer(&gateway, &parts.headers, &accepted).await)
}

/// Reads a request with its whole body. JSON of a large body is read on another thread, because other requests wait for
/// this one.
pub(crate) async fn read_request(uri: &Uri, headers: &HeaderMap, body: Bytes) -> Result<JobRequest, Problem> {
    if body.len() < aside::LARGE_BYTES {
        return JobRequest::read(uri, headers, body);
    }
    let (uri, headers) = (uri.clone(), headers.clone());
    aside::run(move || JobRequest::read(&uri, &headers, body)).await
}

/// Returns the result if the client waits and the job ends in time. Otherwise returns the status and the links to
/// follow the job.
async fn answer(gateway: &GatewayState, headers: &HeaderMap, accepted: &Accepted) -> Response {
    let queued = || JobStatus::from(&accepted.job).response_with_location(StatusCode::ACCEPTED);
    let Some(wait) = prefer::wait(headers) else {
        return accepted.existing.as_ref().map_or_else(queued, current);
    };
    let wait = wait.min(gateway.settings.max_wait.get());
    let waited = wait::until_ended(&*gateway.ledger, &accepted.job.id, wait, &gateway.stop).await;
    let mut response = match waited {
        Ok(Some(record)) if record.state.has_ended() => {
            result::response(&gateway.blobs, &record).await.unwrap_or_else(Problem::into_response)
        }
        Ok(Some(record)) => current(&record),
        // If the wait fails, the job is still accepted.
        Ok(None) => queued(),
        Err(error) => {
            tracing::warn!(%error, job = %accepted.job.id, "waiting for a job failed");
            queued()
        }
    };
    prefer::applied(response.headers_mut(), wait);
    response
}

/// The status of a job with a record: 200 if the job has ended.
fn current(record: &JobRecord) -> Response {
    let status = if record.state.has_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    JobStatus::from(record).response_with_location(status)
}
