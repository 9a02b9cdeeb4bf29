//! Query parameters of requests about jobs.

use std::fmt::Display;
use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use queue::JobId;
use service::Period;

use crate::http::problem::{Problem, ProblemKind};

/// The parameters of a query, decoded, in order.
pub(crate) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    if uri.query().is_none() {
        return Ok(Vec::new());
    }
    let query = Query::try_from_uri(uri).map_err(|error| {
        Problem::new(ProblemKind::BadQuery, format!("query: cannot be read: {}", error.body_text()))
    })?;
    Ok(query.0)
}

/// The problem of a parameter that the route does not have.
pub(crate) fn unknown_key(key: &str, allowed: &[&str]) -> Problem {
    let key: String = key.chars().take(80).collect();
    let detail = format!("query: {key:?} is not one of {}", allowed.join(", "));
    Problem::new(ProblemKind::BadQuery, detail).field(key)
}

/// The problem of a parameter with a wrong value; `detail` starts with the key.
pub(crate) fn bad_value(key: &str, detail: impl Display) -> Problem {
    Problem::new(ProblemKind::BadQuery, detail.to_string()).field(key)
}

/// The parameter `wait`: how long the request may wait for the job to end.
pub(crate) fn wait(uri: &Uri) -> Result<Option<Duration>, Problem> {
    let mut wait = None;
    for (key, value) in pairs(uri)? {
        if key != "wait" {
            return Err(unknown_key(&key, &["wait"]));
        }
        // Plain seconds, as in `Prefer: wait=10`.
        let seconds = value.parse().map(Duration::from_secs);
        wait = Some(
            seconds
                .or_else(|_| duration(&value))
                .map_err(|reason| bad_value("wait", format_args!("wait: {value:?} {reason}")))?,
        );
    }
    Ok(wait)
}

/// Refuses every parameter: the route has none.
pub(crate) fn none(uri: &Uri) -> Result<(), Problem> {
    let Some((key, _)) = pairs(uri)?.into_iter().next() else { return Ok(()) };
    let key: String = key.chars().take(80).collect();
    Err(bad_value(&key, format_args!("query: {key:?} is not a parameter; this route has none")))
}

/// A duration such as `30s`. The error completes a sentence that starts with the value.
pub(crate) fn duration(value: &str) -> Result<Duration, &'static str> {
    value.parse::<Period>().map(Period::get).map_err(|_| "is not a duration such as 250ms, 30s or 5m")
}

/// The id of the job of an event: `pool`, and the `source` and `id` of the event.
pub(crate) fn job_of_event(uri: &Uri) -> Result<JobId, Problem> {
    let keys = ["pool", "source", "id"];
    let mut values = [const { None }; 3];
    for (key, value) in pairs(uri)? {
        let Some(place) = keys.iter().position(|allowed| *allowed == key) else {
            return Err(unknown_key(&key, &keys));
        };
        values[place] = Some(value).filter(|value| !value.is_empty());
    }
    let missing = |key: &str| {
        bad_value(key, format_args!("{key}: is missing; give the pool, and the source and id of the event"))
    };
    let [pool, source, id] = values;
    let pool = pool.ok_or_else(|| missing("pool"))?.parse().map_err(|error: queue::Error| bad_value("pool", error))?;
    let (source, id) = (source.ok_or_else(|| missing("source"))?, id.ok_or_else(|| missing("id"))?);
    JobId::of_event(&pool, &source, &id).map_err(|error| bad_value("id", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_duration() {
        let wait = |query: &str| wait(&format!("/v1/jobs/a{query}").parse().unwrap()).map_err(|problem| problem.kind());
        assert_eq!(wait(""), Ok(None));
        assert_eq!(wait("?wait=2s"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(wait("?wait=10"), Ok(Some(Duration::from_secs(10))));
        assert_eq!(wait("?wait=soon"), Err(ProblemKind::BadQuery));
        assert_eq!(wait("?timeout=2s"), Err(ProblemKind::BadQuery));
    }
}
