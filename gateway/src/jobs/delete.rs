//! `DELETE /v1/jobs/{id}`: deletes the record of an ended job.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use queue::Forgotten;

use crate::http::extract::JobPath;
use crate::http::problem::{Problem, ProblemKind};
use crate::http::query;
use crate::jobs::cleanup::{delete_blobs, run_to_end};
use crate::state::SharedState;

/// Deletes the record of an ended job, with its input and output.
pub(crate) async fn delete(
    State(gateway): State<SharedState>,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    query::none(&uri)?;
    run_to_end(async move {
        match gateway.ledger.forget(&id).await? {
            Forgotten::Forgotten(blobs) => {
                delete_blobs(&gateway.blobs, blobs).await;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            Forgotten::Retained(queue::JobState::Cancelled) => {
                let detail = format!(
                    "job {id} was cancelled and its message may still wait in the broker; the record prevents that it \
                     runs, and is deleted when its retention is over"
                );
                Err(Problem::new(ProblemKind::RecordNeeded, detail).job(&id))
            }
            Forgotten::Retained(state) => {
                let detail = format!("job {id} is {}; wait until it has ended", state.as_str());
                Err(Problem::new(ProblemKind::JobNotEnded, detail).job(&id).state(state, None))
            }
            Forgotten::Unknown => Err(Problem::unknown_job(&id)),
        }
    })
    .await
}
