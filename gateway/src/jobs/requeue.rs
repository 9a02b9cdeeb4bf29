//! `POST /v1/jobs/{id}/requeue`: queues a dead or failed job again, with its input or another one.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use queue::{Body, Input, JobId, Requeued};

use crate::http::body;
use crate::http::extract::JobPath;
use crate::http::job_request::JobRequest;
use crate::http::problem::{Problem, ProblemKind};
use crate::intake::{JobOptions, wrote_nothing};
use crate::jobs::cleanup::{delete_blobs, run_to_end};
use crate::jobs::status::JobStatus;
use crate::jobs::submit::read_request;
use crate::state::{GatewayState, SharedState};

/// Queues the job again. Without a body it keeps its input; a body is its new input, checked like a submission.
pub(crate) async fn requeue(
    State(gateway): State<SharedState>,
    JobPath(id): JobPath,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let (bytes, _reserved) = body::read(&parts.headers, body, &gateway.settings, &gateway.budget).await?;
    let input = match bytes.is_empty() {
        true if parts.uri.query().is_some() => return Err(options_refused()),
        // A request with a content type should have a body, so an empty one is a mistake.
        true if parts.headers.contains_key(CONTENT_TYPE) => return Err(empty_body()),
        true => None,
        false => Some(new_input(&gateway, &id, &parts.uri, &parts.headers, bytes).await?),
    };
    let new_blob = input.as_ref().and_then(|input| match &input.body {
        Body::Reference(blob) => Some(blob.clone()),
        Body::Inline(_) => None,
    });
    run_to_end(async move {
        let requeued = match gateway.ledger.requeue(&id, input).await {
            Ok(requeued) => requeued,
            Err(error) => {
                if wrote_nothing(&error) {
                    delete_blobs(&gateway.blobs, new_blob).await;
                }
                return Err(Problem::from(error).job(&id));
            }
        };
        match requeued {
            Requeued::Queued { replaced } => {
                delete_blobs(&gateway.blobs, replaced).await;
                let record = gateway.ledger.get(&id).await?.ok_or_else(|| Problem::unknown_job(&id))?;
                Ok(JobStatus::from(&record).response_with_location(StatusCode::ACCEPTED))
            }
            Requeued::NotDead(state) => {
                delete_blobs(&gateway.blobs, new_blob).await;
                let detail = format!("job {id} is {}; only a dead or failed job can be requeued", state.as_str());
                Err(Problem::new(ProblemKind::JobNotDead, detail).job(&id).state(state, None))
            }
            Requeued::Unknown => {
                delete_blobs(&gateway.blobs, new_blob).await;
                Err(Problem::unknown_job(&id))
            }
        }
    })
    .await
}

/// The new input of the job, checked and durable.
async fn new_input(
    gateway: &GatewayState,
    id: &JobId,
    uri: &Uri,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<Input, Problem> {
    let JobRequest { options, media_type, media_type_field, bytes } = read_request(uri, headers, bytes).await?;
    if options != JobOptions::default() {
        return Err(options_refused());
    }
    let record = gateway.ledger.get(id).await?.ok_or_else(|| Problem::unknown_job(id))?;
    let pool = gateway.intake.pool(&record.pool).map_err(|_| {
        let detail = format!("pool: {:?} of job {id} is not configured any more", record.pool.as_str());
        Problem::new(ProblemKind::UnknownPool, detail).field("pool").job(id)
    })?;
    let input = gateway.intake.input(id, pool, media_type, bytes).await;
    Ok(input.map_err(|error| error.with_media_type_field(media_type_field))?)
}

fn empty_body() -> Problem {
    let detail = "body: is empty; send an input, or leave out content-type to run the job with its present input";
    Problem::new(ProblemKind::EmptyBody, detail).field("body")
}

fn options_refused() -> Problem {
    let detail = "query: a requeued job keeps its id and class and has no deadline; send only an input";
    Problem::new(ProblemKind::BadOption, detail).field("query")
}
