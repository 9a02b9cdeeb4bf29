//! `POST /v1/jobs/{id}/requeue`: a dead or failed job is tried again, with its input or another.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use queue::{Body, Input, JobId, Requeued, Role};

use crate::http::body;
use crate::http::extract::JobPath;
use crate::http::job_request::Submission;
use crate::http::options::Options;
use crate::http::problem::{Problem, ProblemKind};
use crate::jobs::dead::{delete, see_through};
use crate::jobs::follow::unknown;
use crate::jobs::status::JobStatus;
use crate::server::Shared;

/// Queues the job again. No body leaves its input; any other is its new one, checked like a submission.
pub(crate) async fn requeue(
    State(gateway): State<Arc<Shared>>,
    JobPath(id): JobPath,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let settings = &gateway.settings;
    let bytes = body::read(&parts.headers, body, settings.max_body.as_usize(), settings.body_timeout.get()).await?;
    let input = match bytes.is_empty() {
        true if parts.uri.query().is_some() => return Err(no_options()),
        // Whoever says of what type it is meant to send one.
        true if parts.headers.contains_key(CONTENT_TYPE) => return Err(empty()),
        true => None,
        false => Some(edited(&gateway, &id, &parts.uri, &parts.headers, bytes).await?),
    };
    let new = input.as_ref().and_then(|input| match &input.body {
        Body::Reference(blob) => Some(blob.clone()),
        Body::Inline(_) => None,
    });
    see_through(async move {
        match gateway.ledger.requeue(&id, input).await.map_err(|error| Problem::from(error).job(&id))? {
            Requeued::Queued { replaced } => {
                delete(&gateway, replaced).await;
                let record = gateway.ledger.get(&id).await?.ok_or_else(|| unknown(&id))?;
                Ok(JobStatus::from(&record).accepted(StatusCode::ACCEPTED))
            }
            Requeued::NotDead(state) => {
                delete(&gateway, new).await;
                let detail = format!("job {id} is {}, and only a dead or failed job is requeued", state.as_str());
                Err(Problem::new(ProblemKind::JobNotDead, detail).job(&id).ended_as(state, None))
            }
            Requeued::Unknown => {
                delete(&gateway, new).await;
                Err(unknown(&id))
            }
        }
    })
    .await
}

/// The new input, durable if it is too big to travel along.
async fn edited(gateway: &Shared, id: &JobId, uri: &Uri, headers: &HeaderMap, bytes: Bytes) -> Result<Input, Problem> {
    let Submission { options, media_type, body } = Submission::read(uri, headers, bytes)?;
    if options != Options::default() {
        return Err(no_options());
    }
    let record = gateway.ledger.get(id).await?.ok_or_else(|| unknown(id))?;
    let pool = gateway.pools.get(&record.pool).ok_or_else(|| {
        let detail = format!("pool: {:?} of job {id} is not configured any more", record.pool.as_str());
        Problem::new(ProblemKind::UnknownPool, detail).field("pool").job(id)
    })?;
    pool.admission.check(&media_type, &body)?;
    Ok(Input { media_type, body: gateway.blobs.body(id, Role::Input, body).await? })
}

fn empty() -> Problem {
    let detail = "body: is empty; send the input, or leave out content-type as well to keep the former one";
    Problem::new(ProblemKind::EmptyBody, detail).field("body")
}

fn no_options() -> Problem {
    let detail = "query: a requeued job keeps its id and class and has no deadline; send nothing but an input";
    Problem::new(ProblemKind::BadOption, detail).field("query")
}
