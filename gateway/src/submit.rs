//! `POST /v1/pools/{pool}/jobs`: takes a job.
//!
//! The ledger first, then the broker, and only then the answer: a job that a client was told of is never lost. What
//! is in the ledger and not in the broker is published by upkeep.

use std::slice;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use queue::{Body, Clock, Input, Job, JobId, JobRecord, PoolName, Publication, Role, Submitted};

use crate::path::PoolPath;
use crate::pool::Pool;
use crate::problem::{Problem, ProblemKind};
use crate::result;
use crate::server::Shared;
use crate::status::JobStatus;
use crate::submission::Submission;
use crate::{body, metrics, prefer, trace, wait};

pub(crate) async fn submit(
    State(gateway): State<Arc<Shared>>,
    PoolPath(name): PoolPath,
    request: Request,
) -> Result<Response, Problem> {
    let pool = gateway.pools.get(&name).ok_or_else(|| {
        Problem::new(ProblemKind::UnknownPool, format!("pool: {:?} is not configured", name.as_str())).field("pool")
    })?;
    let (parts, body) = request.into_parts();
    let settings = &gateway.settings;
    let bytes = body::read(&parts.headers, body, settings.max_body.as_usize(), settings.body_timeout.get()).await?;
    let submission = Submission::read(&parts.uri, &parts.headers, bytes)?;
    pool.admission.check(&submission.media_type, &submission.body)?;
    let job = job(&gateway, pool, name, &parts.headers, submission).await?;
    let submitted = store(&gateway, &job).await?;
    answer(&gateway, &parts.headers, &job, submitted).await
}

/// The job, its input durable if it is too big to travel along.
async fn job(
    gateway: &Shared,
    pool: &Pool,
    name: PoolName,
    headers: &HeaderMap,
    submission: Submission,
) -> Result<Job, Problem> {
    let Submission { options, media_type, body } = submission;
    let created_at = Clock::default().now();
    let deadline_at = match options.deadline {
        Some(deadline) => Some(created_at.checked_add(deadline).map_err(|_| {
            let detail = format!("deadline: {deadline:?} from now is past the end of time");
            Problem::new(ProblemKind::BadOption, detail).field("deadline")
        })?),
        None => pool.deadline.and_then(|deadline| created_at.checked_add(deadline).ok()),
    };
    let id = options.id.unwrap_or_else(JobId::generate);
    let body = gateway.blobs.body(&id, Role::Input, body).await?;
    Ok(Job {
        id,
        pool: name,
        class: options.class.unwrap_or_default(),
        input: Input { media_type, body },
        created_at,
        deadline_at,
        max_attempts: pool.max_attempts,
        retention: pool.retention,
        trace_parent: trace::parent(headers),
        origin: None,
    })
}

/// Opens the job's record and publishes it where nobody has. `Some`: the record of a job that was known already.
async fn store(gateway: &Shared, job: &Job) -> Result<Option<JobRecord>, Problem> {
    let submitting = gateway.ledger.submit(slice::from_ref(job)).await;
    let submitted = submitting.map_err(|error| Problem::unsure(error, &job.id))?.pop();
    match submitted {
        Some(Submitted::New) => {
            metrics::submitted(&job.pool, job.class, "new");
            metrics::taken(&job.pool, &job.input.body);
            publish(gateway, job, Publication::first(job.id.clone())).await?;
            Ok(None)
        }
        Some(Submitted::Existing { record, publish: None }) => {
            metrics::submitted(&job.pool, job.class, "known");
            forget_input(gateway, job).await;
            Ok(Some(*record))
        }
        Some(Submitted::Existing { record, publish: Some(publication) }) => {
            metrics::submitted(&job.pool, job.class, "known");
            publish(gateway, job, publication).await?;
            Ok(Some(*record))
        }
        Some(Submitted::Conflict) => {
            metrics::submitted(&job.pool, job.class, "conflict");
            forget_input(gateway, job).await;
            let detail = format!("id: {:?} belongs to a job with another pool or input", job.id.as_str());
            Err(Problem::new(ProblemKind::IdConflict, detail).field("id").job(&job.id))
        }
        None => Err(Problem::new(ProblemKind::Internal, "the ledger gave no answer").job(&job.id)),
    }
}

async fn publish(gateway: &Shared, job: &Job, publication: Publication) -> Result<(), Problem> {
    if let Err(error) = gateway.producer.publish(slice::from_ref(job)).await {
        tracing::warn!(%error, job = %job.id, "job not confirmed by the broker");
        let detail = format!(
            "job {} is stored but the broker did not confirm it; it may still run, and repeating the request with \
             this id is safe",
            job.id
        );
        return Err(Problem::new(ProblemKind::NotConfirmed, detail).job(&job.id));
    }
    gateway.confirmations.confirm(publication);
    Ok(())
}

/// Deletes the input of a submission that opened no record: nobody refers to it.
async fn forget_input(gateway: &Shared, job: &Job) {
    if let Body::Reference(blob) = &job.input.body
        && let Err(error) = gateway.blobs.delete(blob).await
    {
        tracing::warn!(%error, blob = blob.key, "cannot delete the input of a repeated submission");
    }
}

/// The result if the client waits for it and it comes in time, else where to find it.
async fn answer(
    gateway: &Shared,
    headers: &HeaderMap,
    job: &Job,
    known: Option<JobRecord>,
) -> Result<Response, Problem> {
    let Some(wait) = prefer::wait(headers) else {
        return Ok(match &known {
            None => JobStatus::from(job).accepted(StatusCode::ACCEPTED),
            Some(record) => accepted(record),
        });
    };
    let wait = wait.min(gateway.settings.max_wait.get());
    let waited = wait::until_ended(&*gateway.ledger, &job.id, wait, &gateway.stop).await;
    let mut response = match waited {
        Ok(Some(record)) if record.state.has_ended() => {
            result::response(&gateway.blobs, &record).await.unwrap_or_else(Problem::into_response)
        }
        Ok(Some(record)) => accepted(&record),
        // The job is accepted whatever becomes of the wait.
        Ok(None) => JobStatus::from(job).accepted(StatusCode::ACCEPTED),
        Err(error) => {
            tracing::warn!(%error, job = %job.id, "waiting for a job broke off");
            JobStatus::from(job).accepted(StatusCode::ACCEPTED)
        }
    };
    prefer::applied(response.headers_mut(), wait);
    Ok(response)
}

fn accepted(record: &JobRecord) -> Response {
    let status = if record.state.has_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    JobStatus::from(record).accepted(status)
}
