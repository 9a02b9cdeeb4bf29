//! The options of a job: `id`, `class` and `deadline`, in the query or in the envelope.

use std::time::Duration;

use axum::http::Uri;
use queue::JobId;

use crate::http::problem::{Problem, ProblemKind};
use crate::http::query;
use crate::intake::JobOptions;

const KEYS: [&str; 3] = ["id", "class", "deadline"];

/// The options in a query.
pub(crate) fn from_query(uri: &Uri) -> Result<JobOptions, Problem> {
    let mut options = JobOptions::default();
    for (key, value) in query::pairs(uri)? {
        if !KEYS.contains(&key.as_str()) {
            return Err(query::unknown_key(&key, &KEYS));
        }
        set(&mut options, &key, &value)?;
    }
    Ok(options)
}

/// Sets `id`, `class` or `deadline`, each at most once.
pub(crate) fn set(options: &mut JobOptions, key: &str, value: &str) -> Result<(), Problem> {
    let twice = match key {
        "id" => options.id.replace(new_id(value)?).is_some(),
        "class" => {
            let class = value.parse().map_err(|error: queue::Error| bad_option("class", error.to_string()))?;
            options.class.replace(class).is_some()
        }
        _ => options.deadline.replace(deadline(value)?).is_some(),
    };
    if twice {
        return Err(bad_option(key, format!("{key}: is given twice; give it in the query or in the body, once")));
    }
    Ok(())
}

/// The id that a client chooses for a new job. With an id of a job of an event, the client would take the place of that
/// job.
fn new_id(text: &str) -> Result<JobId, Problem> {
    let id = id(text)?;
    match id.reserved_prefix() {
        Some(prefix) => {
            Err(bad_id(format!("id: {text:?} starts with {prefix:?}, which is reserved for jobs of events")))
        }
        None => Ok(id),
    }
}

/// The id of a job, in a path or an option.
pub(crate) fn id(text: &str) -> Result<JobId, Problem> {
    // Clients remove `.` and `..` from a path before they send it, so no request could name such a job.
    if matches!(text, "." | "..") {
        return Err(bad_id(format!("id: {text:?} cannot stand in a URL")));
    }
    text.parse().map_err(|error: queue::Error| bad_id(error.to_string()))
}

fn deadline(value: &str) -> Result<Duration, Problem> {
    let bad = |reason| bad_option("deadline", format!("deadline: {value:?} {reason}"));
    match query::duration(value) {
        Ok(Duration::ZERO) => Err(bad("is over before it begins; give a time from now, such as 30s")),
        Ok(deadline) => Ok(deadline),
        Err(reason) => Err(bad(reason)),
    }
}

fn bad_id(detail: String) -> Problem {
    Problem::new(ProblemKind::BadId, detail).field("id")
}

fn bad_option(key: &str, detail: String) -> Problem {
    Problem::new(ProblemKind::BadOption, detail).field(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::Class;

    fn options(query: &str) -> Result<JobOptions, ProblemKind> {
        let uri = format!("/v1/pools/p/jobs{query}").parse().unwrap();
        from_query(&uri).map_err(|problem| problem.kind())
    }

    #[test]
    fn a_query_sets_id_class_and_deadline() {
        assert_eq!(options(""), Ok(JobOptions::default()));
        let all = options("?id=order-1&class=premium&deadline=1500ms").unwrap();
        assert_eq!(all.id.unwrap().as_str(), "order-1");
        assert_eq!(all.class, Some(Class::Premium));
        assert_eq!(all.deadline, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn each_wrong_option_is_refused() {
        for query in ["?class=gold", "?deadline=soon", "?deadline=0s", "?class=batch&class=batch"] {
            assert_eq!(options(query), Err(ProblemKind::BadOption), "{query}");
        }
        for query in ["?id=a/b", "?id=", "?id=..", "?id=%00", "?id=event-1", "?id=unreadable-1"] {
            assert_eq!(options(query), Err(ProblemKind::BadId), "{query}");
        }
        assert_eq!(options("?prio=1"), Err(ProblemKind::BadQuery));
    }
}
