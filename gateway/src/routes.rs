//! The routes: which handler answers which path and method.

use axum::routing::{get, post};
use axum::{Router, middleware};
use service::Health;

use crate::http::observe;
use crate::jobs::{dead, delete, follow, requeue, submit};
use crate::paths::{CANCEL, DEAD, INPUT, JOB, JOB_OF_EVENT, POOL_JOBS, REQUEUE, RESULT};
use crate::state::SharedState;

pub(crate) fn router(state: SharedState, health: &Health) -> Router {
    Router::new()
        .route(POOL_JOBS, post(submit::submit))
        .route(JOB_OF_EVENT, get(follow::status_of_event))
        .route(JOB, get(follow::status).delete(delete::delete))
        .route(RESULT, get(follow::result))
        .route(CANCEL, post(follow::cancel))
        .route(INPUT, get(follow::input))
        .route(REQUEUE, post(requeue::requeue))
        .route(DEAD, get(dead::list).delete(dead::purge))
        .with_state(state)
        .merge(health.router())
        .fallback(observe::unknown_route)
        .method_not_allowed_fallback(observe::wrong_method)
        .layer(middleware::from_fn(observe::observe))
}
