//! `GET /v1/jobs/{id}`, `/v1/jobs?pool=…&source=…&id=…`, `…/result`, `…/input`, `POST /v1/jobs/{id}/cancel`: follows a
//! job to its end.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use queue::{JobId, JobRecord};

use crate::http::extract::JobPath;
use crate::http::problem::{Problem, ProblemKind};
use crate::http::query;
use crate::jobs::status::JobStatus;
use crate::jobs::{result, wait};
use crate::state::{GatewayState, SharedState};

/// Returns the status of the job; with `wait` as soon as the job has ended.
pub(crate) async fn status(
    State(gateway): State<SharedState>,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    let wait = query::wait(&uri)?.unwrap_or_default();
    let mut record = until_ended(&gateway, &id, wait).await?;
    if !wait.is_zero() {
        // The records of a watch come without their history.
        record = gateway.ledger.get(&id).await?.ok_or_else(|| Problem::unknown_job(&id))?;
    }
    Ok(JobStatus::from(&record).response(StatusCode::OK))
}

/// Returns the status of the job of an event.
pub(crate) async fn status_of_event(State(gateway): State<SharedState>, uri: Uri) -> Result<Response, Problem> {
    let id = query::job_of_event(&uri)?;
    match gateway.ledger.get(&id).await? {
        Some(record) => Ok(JobStatus::from(&record).response(StatusCode::OK)),
        None => {
            let detail = "id: this event has no record; no worker has received it yet, or its record has been deleted";
            Err(Problem::new(ProblemKind::UnknownJob, detail).field("id").job(&id))
        }
    }
}

/// Returns the input of the job, byte for byte. It is 410 if the job succeeded, because its input is deleted then.
pub(crate) async fn input(
    State(gateway): State<SharedState>,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    query::none(&uri)?;
    let Some(input) = gateway.ledger.input(&id).await? else {
        return Err(match gateway.ledger.get(&id).await? {
            Some(_) => {
                let detail =
                    format!("the job succeeded, so its input is deleted; its result is at /v1/jobs/{id}/result");
                Problem::new(ProblemKind::InputDeleted, detail).job(&id)
            }
            None => Problem::unknown_job(&id),
        });
    };
    result::untrusted_bytes(&gateway.blobs, &id, &input.media_type, &input.body).await
}

/// Returns the result of the job; with `wait` as soon as the job has ended.
pub(crate) async fn result(
    State(gateway): State<SharedState>,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    let record = until_ended(&gateway, &id, query::wait(&uri)?.unwrap_or_default()).await?;
    result::response(&gateway.blobs, &record).await
}

/// Cancels the job. This may be repeated. A job that ended in another way stays as it is.
pub(crate) async fn cancel(
    State(gateway): State<SharedState>,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    query::none(&uri)?;
    let record = gateway.ledger.cancel(&id).await?.ok_or_else(|| Problem::unknown_job(&id))?;
    if record.state != queue::JobState::Cancelled {
        let detail = format!("job {id} has {} already and cannot be cancelled", record.state.as_str());
        let problem = Problem::new(ProblemKind::JobEnded, detail).job(&id);
        return Err(problem.state(record.state, record.error));
    }
    Ok(JobStatus::from(&record).response(StatusCode::OK))
}

async fn until_ended(gateway: &GatewayState, id: &JobId, wait: Duration) -> Result<JobRecord, Problem> {
    let wait = wait.min(gateway.settings.max_wait.get());
    let found = wait::until_ended(&*gateway.ledger, id, wait, &gateway.stop).await?;
    found.ok_or_else(|| Problem::unknown_job(id))
}
