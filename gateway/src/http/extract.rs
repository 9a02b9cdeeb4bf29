//! The variable parts of a path. A part that cannot be read is refused with a problem document.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use queue::{JobId, PoolName};

use crate::http::options;
use crate::http::problem::{Problem, ProblemKind};

/// The `{id}` of a path.
pub(crate) struct JobPath(pub(crate) JobId);

/// The `{pool}` of a path.
pub(crate) struct PoolPath(pub(crate) PoolName);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(unreadable)?;
        Ok(Self(options::id(&text)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PoolPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(unreadable)?;
        // For a client, an invalid name is an unknown pool. The message contains the rule for names.
        let name = text
            .parse()
            .map_err(|error: queue::Error| Problem::new(ProblemKind::UnknownPool, error.to_string()).field("pool"))?;
        Ok(Self(name))
    }
}

fn unreadable(error: PathRejection) -> Problem {
    Problem::new(ProblemKind::BadPath, format!("path: {}", error.body_text())).field("path")
}
