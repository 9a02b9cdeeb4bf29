//! What a client may say about a job besides its input: `id`, `class`, `deadline`.

use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use queue::{Class, JobId};
use service::Period;

use crate::http::problem::{Problem, ProblemKind};

/// What a client may say about a job besides its input. Each may be said once, in the query or in the envelope.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) id: Option<JobId>,
    pub(crate) class: Option<Class>,
    pub(crate) deadline: Option<Duration>,
}

impl Options {
    /// The options in a query.
    pub(crate) fn from_query(uri: &Uri) -> Result<Self, Problem> {
        let mut options = Self::default();
        for (key, value) in pairs(uri)? {
            match key.as_str() {
                "id" | "class" | "deadline" => options.set(&key, &value)?,
                _ => return Err(unknown(&key, "id, class, deadline")),
            }
        }
        Ok(options)
    }

    /// Takes one of `id`, `class` and `deadline`.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), Problem> {
        let twice = match key {
            "id" => self.id.replace(id(value)?).is_some(),
            "class" => {
                let class = value
                    .parse::<Class>()
                    .map_err(|error| Problem::new(ProblemKind::BadOption, error.to_string()).field("class"))?;
                self.class.replace(class).is_some()
            }
            _ => self.deadline.replace(deadline(value)?).is_some(),
        };
        if twice {
            let detail = format!("{key}: is given twice; give it in the query or in the body, once");
            return Err(Problem::new(ProblemKind::BadOption, detail).field(key));
        }
        Ok(())
    }
}

/// The `wait` of a question about a job: how long the answer may be held back, `None` without one.
pub(crate) fn wait(uri: &Uri) -> Result<Option<Duration>, Problem> {
    let mut wait = None;
    for (key, value) in pairs(uri)? {
        if key != "wait" {
            return Err(unknown(&key, "wait"));
        }
        let duration = duration(&value)
            .map_err(|reason| Problem::new(ProblemKind::BadQuery, format!("wait: {value:?} {reason}")).field("wait"))?;
        wait = Some(duration);
    }
    Ok(wait)
}

/// The id of the job that a question is about, by its pool and the `source` and `id` of the event that asked for it.
pub(crate) fn job_of_event(uri: &Uri) -> Result<JobId, Problem> {
    let keys = ["pool", "source", "id"];
    let mut values = [const { None }; 3];
    for (key, value) in pairs(uri)? {
        let Some(place) = keys.iter().position(|known| *known == key) else {
            return Err(unknown(&key, &keys.join(", ")));
        };
        values[place] = Some(value).filter(|value| !value.is_empty());
    }
    let missing = |key: &str| wrong_event(key, &"is missing; name a pool, and the event's source and id");
    let [pool, source, id] = values;
    let pool = pool.ok_or_else(|| missing("pool"))?.parse().map_err(|error| wrong_event("pool", &error))?;
    let (source, id) = (source.ok_or_else(|| missing("source"))?, id.ok_or_else(|| missing("id"))?);
    JobId::of_event(&pool, &source, &id).map_err(|error| wrong_event("id", &error))
}

fn wrong_event(key: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::BadQuery, format!("{key}: {why}")).field(key)
}

/// The id of a job, in a path or an option.
pub(crate) fn id(text: &str) -> Result<JobId, Problem> {
    // Clients resolve `.` and `..` away before they send a path, so a job of that name could not be asked about.
    if matches!(text, "." | "..") {
        let detail = format!("id: {text:?} cannot stand in a URL");
        return Err(Problem::new(ProblemKind::BadId, detail).field("id"));
    }
    text.parse().map_err(|error: queue::Error| Problem::new(ProblemKind::BadId, error.to_string()).field("id"))
}

fn deadline(value: &str) -> Result<Duration, Problem> {
    let wrong =
        |reason: &str| Problem::new(ProblemKind::BadOption, format!("deadline: {value:?} {reason}")).field("deadline");
    match duration(value) {
        Ok(Duration::ZERO) => Err(wrong("is over before it begins; say how long from now, such as 30s")),
        Ok(deadline) => Ok(deadline),
        Err(reason) => Err(wrong(reason)),
    }
}

fn duration(value: &str) -> Result<Duration, &'static str> {
    value.parse::<Period>().map(Period::get).map_err(|_| "is not a duration such as 250ms, 30s or 5m")
}

pub(crate) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    if uri.query().is_none() {
        return Ok(Vec::new());
    }
    let query = Query::try_from_uri(uri).map_err(|error| {
        Problem::new(ProblemKind::BadQuery, format!("query: cannot be read: {}", error.body_text()))
    })?;
    Ok(query.0)
}

pub(crate) fn unknown(key: &str, known: &str) -> Problem {
    let key: String = key.chars().take(80).collect();
    let detail = format!("query: {key:?} is not one of {known}");
    Problem::new(ProblemKind::BadQuery, detail).field(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<Options, ProblemKind> {
        let uri = format!("/v1/pools/p/jobs{query}").parse().unwrap();
        Options::from_query(&uri).map_err(|problem| problem.kind())
    }

    #[test]
    fn a_query_says_id_class_and_deadline() {
        assert_eq!(options(""), Ok(Options::default()));
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
        for query in ["?id=a/b", "?id=", "?id=..", "?id=%00"] {
            assert_eq!(options(query), Err(ProblemKind::BadId), "{query}");
        }
        assert_eq!(options("?prio=1"), Err(ProblemKind::BadQuery));
    }

    #[test]
    fn a_wait_is_a_duration() {
        let wait = |query: &str| wait(&format!("/v1/jobs/a{query}").parse().unwrap()).map_err(|problem| problem.kind());
        assert_eq!(wait(""), Ok(None));
        assert_eq!(wait("?wait=2s"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(wait("?wait=soon"), Err(ProblemKind::BadQuery));
        assert_eq!(wait("?timeout=2s"), Err(ProblemKind::BadQuery));
    }
}
