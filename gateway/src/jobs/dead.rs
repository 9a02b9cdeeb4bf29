//! `GET /v1/dead`, `DELETE /v1/dead`: lists and deletes jobs that ended as dead or failed.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use queue::{DeadFilter, DeadPosition, PoolName};
use serde_json::json;

use crate::http::problem::Problem;
use crate::http::query::{bad_value, pairs, unknown_key};
use crate::jobs::cleanup::{delete_blobs, run_to_end};
use crate::jobs::status::JobStatus;
use crate::state::SharedState;

/// The number of jobs in a page, by default and at most.
const PAGE: usize = 50;
const LONGEST_PAGE: usize = 500;

/// The most jobs that one request deletes. The limit keeps the request short: the client waits until the blobs of these
/// jobs are deleted too.
const PURGED_AT_ONCE: usize = 100;

/// The dead jobs of a request.
#[derive(Debug, PartialEq)]
struct DeadQuery {
    filter: DeadFilter,
    after: Option<DeadPosition>,
    limit: usize,
}

impl DeadQuery {
    /// Reads a query that may have the keys `allowed`.
    fn read(uri: &Uri, allowed: &[&str]) -> Result<Self, Problem> {
        let filter = DeadFilter { pool: None, state: queue::JobState::Dead };
        let mut query = Self { filter, after: None, limit: PAGE };
        for (key, value) in pairs(uri)? {
            if !allowed.contains(&key.as_str()) {
                return Err(unknown_key(&key, allowed));
            }
            match key.as_str() {
                "pool" => {
                    let pool = value.parse().map_err(|error: queue::Error| bad_value("pool", error))?;
                    query.filter.pool = Some(pool);
                }
                "state" => {
                    let states = [queue::JobState::Dead, queue::JobState::Failed];
                    let state = states.into_iter().find(|state| state.as_str() == value);
                    let fault = format_args!("state: {value:?} is not dead or failed");
                    query.filter.state = state.ok_or_else(|| bad_value("state", fault))?;
                }
                "after" => {
                    let position = value.parse().map_err(|error| bad_value("after", format_args!("after: {error}")))?;
                    query.after = Some(position);
                }
                _ => {
                    let limit = value.parse().ok().filter(|limit| (1..=LONGEST_PAGE).contains(limit));
                    let fault = format_args!("limit: {value:?} is not a number from 1 to {LONGEST_PAGE}");
                    query.limit = limit.ok_or_else(|| bad_value("limit", fault))?;
                }
            }
        }
        Ok(query)
    }
}

/// Returns a page of the jobs that ended as dead or failed, newest ending first.
pub(crate) async fn list(State(gateway): State<SharedState>, uri: Uri) -> Result<Response, Problem> {
    let DeadQuery { filter, after, limit } = DeadQuery::read(&uri, &["pool", "state", "limit", "after"])?;
    let page = gateway.ledger.dead(&filter, after.as_ref(), limit).await?;
    let jobs: Vec<JobStatus<'_>> = page.jobs.iter().map(JobStatus::from).collect();
    let next = page.next.map(|next| next.to_string());
    Ok(Json(json!({ "jobs": jobs, "next": next })).into_response())
}

/// Deletes jobs of a pool that ended as dead or failed. Returns their number, and whether there may be more.
pub(crate) async fn purge(State(gateway): State<SharedState>, uri: Uri) -> Result<Response, Problem> {
    let DeadQuery { filter, .. } = DeadQuery::read(&uri, &["pool", "state"])?;
    if filter.pool.is_none() {
        return Err(bad_value("pool", "pool: is missing; name the pool whose dead jobs are to be deleted"));
    }
    run_to_end(async move {
        let round = gateway.ledger.purge_dead(&filter, PURGED_AT_ONCE).await?;
        delete_blobs(&gateway.blobs, round.blobs).await;
        let (purged, pool) = (round.jobs, filter.pool.as_ref().map(PoolName::as_str));
        tracing::info!(pool, state = filter.state.as_str(), purged, "purged");
        Ok(Json(json!({ "purged": purged, "more": purged >= PURGED_AT_ONCE })).into_response())
    })
    .await
}

#[cfg(test)]
mod tests {
    use crate::http::problem::ProblemKind;

    use super::*;

    fn read(query: &str) -> Result<DeadQuery, ProblemKind> {
        let uri = format!("/v1/dead{query}").parse().unwrap();
        DeadQuery::read(&uri, &["pool", "state", "limit", "after"]).map_err(|problem| problem.kind())
    }

    #[test]
    fn a_query_sets_pool_state_limit_and_after() {
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
