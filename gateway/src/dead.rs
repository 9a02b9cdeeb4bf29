//! `GET /v1/dead`, `DELETE /v1/dead`, `DELETE /v1/jobs/{id}`: jobs that ended badly, and forgetting them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream;
use queue::{BlobRef, DeadFilter, DeadPosition, Forgotten, PoolName};
use serde_json::json;
use tracing::Instrument;

use crate::follow::unknown;
use crate::options;
use crate::path::JobPath;
use crate::problem::{Problem, ProblemKind};
use crate::server::Shared;
use crate::status::JobStatus;

/// How many jobs a page has, unless it is said, and at most.
const PAGE: usize = 50;
const LONGEST_PAGE: usize = 500;

/// How many jobs one request forgets at most: their blobs go with them, and the client waits for an answer.
const PURGED_AT_ONCE: usize = 100;

/// How many blobs are deleted at a time.
const DELETED_AT_ONCE: usize = 16;

/// Which dead jobs are asked for.
#[derive(Debug, PartialEq)]
struct Query {
    filter: DeadFilter,
    after: Option<DeadPosition>,
    limit: usize,
}

impl Query {
    /// The query, which may say `known`.
    fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let filter = DeadFilter { pool: None, state: queue::JobState::Dead };
        let mut query = Self { filter, after: None, limit: PAGE };
        for (key, value) in options::pairs(uri)? {
            if !known.contains(&key.as_str()) {
                return Err(options::unknown(&key, &known.join(", ")));
            }
            match key.as_str() {
                "pool" => query.filter.pool = Some(value.parse().map_err(|error| wrong("pool", error))?),
                "state" => {
                    let states = [queue::JobState::Dead, queue::JobState::Failed];
                    let state = states.into_iter().find(|state| state.as_str() == value);
                    query.filter.state =
                        state.ok_or_else(|| wrong("state", format_args!("state: {value:?} is not dead or failed")))?;
                }
                "after" => {
                    let position = value.parse().map_err(|error| wrong("after", format_args!("after: {error}")))?;
                    query.after = Some(position);
                }
                _ => {
                    let limit = value.parse().ok().filter(|limit| (1..=LONGEST_PAGE).contains(limit));
                    let rule = format_args!("limit: {value:?} is not a number from 1 to {LONGEST_PAGE}");
                    query.limit = limit.ok_or_else(|| wrong("limit", rule))?;
                }
            }
        }
        Ok(query)
    }
}

fn wrong(field: &str, reason: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::BadQuery, reason.to_string()).field(field)
}

/// A page of the jobs that ended as dead or failed, those that ended last first.
pub(crate) async fn list(State(gateway): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    let Query { filter, after, limit } = Query::read(&uri, &["pool", "state", "limit", "after"])?;
    let page = gateway.ledger.dead(&filter, after.as_ref(), limit).await?;
    let jobs: Vec<JobStatus<'_>> = page.jobs.iter().map(JobStatus::from).collect();
    let next = page.next.map(|next| next.to_string());
    Ok(Json(json!({ "jobs": jobs, "next": next })).into_response())
}

/// Forgets jobs of a pool that ended as dead or failed: how many, and whether there may be more.
pub(crate) async fn purge(State(gateway): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    let Query { filter, .. } = Query::read(&uri, &["pool", "state"])?;
    if filter.pool.is_none() {
        return Err(wrong("pool", "pool: is missing; say whose dead jobs are to be forgotten"));
    }
    see_through(async move {
        let round = gateway.ledger.purge_dead(&filter, PURGED_AT_ONCE).await?;
        delete(&gateway, round.blobs).await;
        let (purged, pool) = (round.jobs, filter.pool.as_ref().map(PoolName::as_str));
        tracing::info!(pool, state = filter.state.as_str(), purged, "purged");
        Ok(Json(json!({ "purged": purged, "more": purged >= PURGED_AT_ONCE })).into_response())
    })
    .await
}

/// Forgets an ended job.
pub(crate) async fn forget(State(gateway): State<Arc<Shared>>, JobPath(id): JobPath) -> Result<Response, Problem> {
    see_through(async move {
        match gateway.ledger.forget(&id).await? {
            Forgotten::Forgotten(blobs) => {
                delete(&gateway, blobs).await;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            Forgotten::Retained(queue::JobState::Cancelled) => {
                let detail = format!(
                    "job {id} was cancelled, and its record keeps a message of it that may still wait from being run: \
                     it is forgotten when its retention is over"
                );
                Err(Problem::new(ProblemKind::RecordNeeded, detail).job(&id))
            }
            Forgotten::Retained(state) => {
                let detail = format!("job {id} is {}: wait until it has ended", state.as_str());
                Err(Problem::new(ProblemKind::JobNotEnded, detail).job(&id).ended_as(state, None))
            }
            Forgotten::Unknown => Err(unknown(&id)),
        }
    })
    .await
}

/// Does `work` to its end though the client may go away in the middle: of the blobs of a job that is forgotten
/// nobody else knows.
pub(crate) async fn see_through<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|error| {
        // The panic hook has told where and why.
        tracing::error!(%error, "a request's work broke off");
        Err(Problem::new(ProblemKind::Internal, "the gateway failed; its log tells more"))
    })
}

/// Deletes what no record refers to any more. One that stays is only room lost.
pub(crate) async fn delete(gateway: &Shared, blobs: impl IntoIterator<Item = BlobRef>) {
    let delete = async |blob: BlobRef| {
        if let Err(error) = gateway.blobs.delete(&blob).await {
            tracing::warn!(%error, blob = blob.key, "cannot delete a blob of a forgotten job");
        }
    };
    stream::iter(blobs).for_each_concurrent(DELETED_AT_ONCE, delete).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Query, ProblemKind> {
        let uri = format!("/v1/dead{query}").parse().unwrap();
        Query::read(&uri, &["pool", "state", "limit", "after"]).map_err(|problem| problem.kind())
    }

    #[test]
    fn a_query_says_pool_state_limit_and_after() {
        let query = read("").unwrap();
        assert_eq!((query.filter.state, query.filter.pool, query.limit), (queue::JobState::Dead, None, PAGE));
        let query = read("?pool=digits&state=failed&limit=500&after=12:job-1").unwrap();
        assert_eq!(query.filter.pool.unwrap().as_str(), "digits");
        assert_eq!((query.filter.state, query.limit), (queue::JobState::Failed, 500));
        assert_eq!(query.after.unwrap().to_string(), "12:job-1");
    }

    #[test]
    fn each_wrong_part_of_a_query_is_refused() {
        for query in
            ["?pool=A", "?state=queued", "?state=", "?limit=0", "?limit=501", "?limit=all", "?after=job", "?page=2"]
        {
            assert_eq!(read(query), Err(ProblemKind::BadQuery), "{query}");
        }
    }
}
