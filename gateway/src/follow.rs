//! `GET /v1/jobs/{id}`, `/v1/jobs?pool=…&source=…&id=…`, `…/result`, `…/input`, `POST /v1/jobs/{id}/cancel`: what becomes
//! of a job.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use queue::{JobId, JobRecord};

use crate::path::JobPath;
use crate::problem::{Problem, ProblemKind};
use crate::server::Shared;
use crate::status::JobStatus;
use crate::{options, result, wait};

/// The job as it stands, or with `wait` as soon as it has ended.
pub(crate) async fn status(
    State(gateway): State<Arc<Shared>>,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    let wait = options::wait(&uri)?.unwrap_or_default();
    let mut record = until_ended(&gateway, &id, wait).await?;
    if !wait.is_zero() {
        // What a watch sees comes without the history.
        record = gateway.ledger.get(&id).await?.ok_or_else(|| unknown(&id))?;
    }
    Ok(JobStatus::from(&record).answer(StatusCode::OK))
}

/// The job that an event asked for, as [`status`] tells of a job.
pub(crate) async fn status_of_event(State(gateway): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    let id = options::job_of_event(&uri)?;
    match gateway.ledger.get(&id).await? {
        Some(record) => Ok(JobStatus::from(&record).answer(StatusCode::OK)),
        None => {
            let detail = "id: there is no job of this event; no worker has taken it yet, or it is no longer kept";
            Err(Problem::new(ProblemKind::UnknownJob, detail).field("id").job(&id))
        }
    }
}

/// What the model is given, byte for byte.
pub(crate) async fn input(State(gateway): State<Arc<Shared>>, JobPath(id): JobPath) -> Result<Response, Problem> {
    let input = gateway.ledger.input(&id).await?.ok_or_else(|| unknown(&id))?;
    let bytes = gateway.blobs.bytes(&input.body).await.map_err(|error| Problem::from(error).job(&id))?;
    Ok(result::anybodys_bytes(&id, &input.media_type, bytes))
}

/// The result, or with `wait` as soon as it is there.
pub(crate) async fn result(
    State(gateway): State<Arc<Shared>>,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    let record = until_ended(&gateway, &id, options::wait(&uri)?.unwrap_or_default()).await?;
    result::response(&gateway.blobs, &record).await
}

/// Ends the job as cancelled. May be repeated; a job that ended otherwise stays what it is.
pub(crate) async fn cancel(State(gateway): State<Arc<Shared>>, JobPath(id): JobPath) -> Result<Response, Problem> {
    let record = gateway.ledger.cancel(&id).await?.ok_or_else(|| unknown(&id))?;
    if record.state != queue::JobState::Cancelled {
        let detail = format!("job {id} has {} already and cannot be cancelled", record.state.as_str());
        let problem = Problem::new(ProblemKind::JobEnded, detail).job(&id);
        return Err(problem.ended_as(record.state, record.error));
    }
    Ok(JobStatus::from(&record).answer(StatusCode::OK))
}

async fn until_ended(gateway: &Shared, id: &JobId, wait: Duration) -> Result<JobRecord, Problem> {
    let wait = wait.min(gateway.settings.max_wait.get());
    let found = wait::until_ended(&*gateway.ledger, id, wait, &gateway.stop).await?;
    found.ok_or_else(|| unknown(id))
}

pub(crate) fn unknown(id: &JobId) -> Problem {
    let detail = format!("id: there is no job {:?}, or it is no longer kept", id.as_str());
    Problem::new(ProblemKind::UnknownJob, detail).field("id").job(id)
}
