//! What an event may not claim if other programs can write to its topic or queue.

use super::{Event, SOURCE, SUCCEEDED, Unreadable};
use crate::JobId;

/// The prefixes of the ids of jobs that a message requested. See [`JobId::of_event`] and [`super::unreadable`].
const RESERVED_PREFIXES: [&str; 2] = ["event-", "unreadable-"];

/// Attributes that only a job of Millrace has when it is published again.
const OWN_ATTRIBUTES: [&str; 3] = ["originsource", "originid", "datarefborrowed"];

/// The first parts of the keys of objects that Millrace writes to the blob store.
const OWN_KEYS: [&str; 4] = ["input", "output", "millrace-store", "millrace-ledger"];

impl Event {
    /// The event, if it does not speak as Millrace itself. To be called for messages from topics and queues that a route
    /// names: a program that may write there may not claim jobs of others, or read their inputs.
    ///
    /// The output of a pool may be the input of the next pool, so an event of a succeeded job may refer to an output.
    pub fn without_privileges(self) -> Result<Self, Unreadable> {
        let of = |name: &str| self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let source = of("source").unwrap_or_default();
        if source == SOURCE {
            return Err(Unreadable::new(format_args!(
                "source: {source:?} is reserved for topics and queues of Millrace"
            )));
        }
        if let Some(name) = OWN_ATTRIBUTES.into_iter().find(|name| of(name).is_some()) {
            return Err(Unreadable::new(format_args!("{name}: is reserved for topics and queues of Millrace")));
        }
        if let Some(key) = of("dataref") {
            let is_of_ending = of("type") == Some(SUCCEEDED) && source.starts_with(&format!("{SOURCE}/pools/"));
            // A store of files may take an empty part for none, and upper case for lower case.
            let first = key.split('/').find(|part| !part.is_empty()).unwrap_or_default();
            let own = OWN_KEYS.into_iter().find(|own| first.eq_ignore_ascii_case(own));
            if own.is_some_and(|own| own != "output" || !is_of_ending) {
                return Err(Unreadable::new(format_args!("dataref: {key:?} is an object of Millrace")));
            }
        }
        Ok(self)
    }
}

impl JobId {
    /// The reserved prefix of the id. Such ids belong to jobs of messages, so a client may not choose one.
    pub fn reserved_prefix(&self) -> Option<&'static str> {
        RESERVED_PREFIXES.into_iter().find(|prefix| self.as_str().starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::{BlobRef, Body, Class, Ending, JobState, Output, PoolName};

    /// The reason, if the event has a claim that it may not make.
    fn reason(more: &[(&'static str, &str)]) -> Option<String> {
        let outside = [("specversion", "1.0"), ("id", "1")];
        let source = Some(("source", "/cameras/7")).filter(|_| more.iter().all(|(name, _)| *name != "source"));
        let attributes = outside.iter().chain(&source).chain(more);
        let attributes = attributes.map(|(name, value)| ((*name).into(), (*value).to_owned())).collect();
        let event = Event { attributes, data: Bytes::new() };
        event.without_privileges().err().map(|reason| reason.to_string())
    }

    #[test]
    fn an_outside_event_cannot_speak_as_millrace() {
        assert_eq!(reason(&[]), None);
        assert_eq!(reason(&[("source", "/millrace/pools/first")]), None);
        let reserved = "is reserved for topics and queues of Millrace";
        assert_eq!(reason(&[("source", "/millrace")]), Some(format!("source: \"/millrace\" {reserved}")));
        for name in OWN_ATTRIBUTES {
            assert_eq!(reason(&[(name, "x")]), Some(format!("{name}: {reserved}")));
        }
    }

    #[test]
    fn an_outside_event_cannot_refer_to_an_object_of_millrace() {
        for key in ["cameras/7.jpg", "inputs/7.jpg", "a/input/b", "outputs"] {
            assert_eq!(reason(&[("dataref", key)]), None, "{key}");
        }
        for key in
            ["input/5a/job.1", "/input/5a/job.1", "//INPUT/x", "output/5a/job.1", "millrace-store", "millrace-ledger"]
        {
            let expected = format!("dataref: {key:?} is an object of Millrace");
            assert_eq!(reason(&[("dataref", key)]), Some(expected));
        }
        let ending = |key| reason(&[("source", "/millrace/pools/first"), ("type", SUCCEEDED), ("dataref", key)]);
        assert!(ending("input/5a/job.1").is_some());
    }

    #[test]
    fn the_big_output_of_a_pool_is_a_job_of_the_next_pool() {
        let (id, pool): (JobId, PoolName) = ("job".parse().unwrap(), "first".parse().unwrap());
        let key = "output/5a/job.1".to_owned();
        let blob = BlobRef { key, size_bytes: Some(1), sha256: None, is_borrowed: false };
        let output = Output { media_type: "text/plain".to_owned(), body: Body::Reference(blob.clone()) };
        let (state, finished_at) = (JobState::Succeeded, Timestamp::UNIX_EPOCH);
        let (output, error, origin, trace_parent) = (Some(output), None, None, None);
        let ending = Ending { id, pool, state, finished_at, output, error, origin, trace_parent };
        let event = Event::of_ending(&ending).without_privileges().unwrap();
        let job = event.into_job(&"second".parse().unwrap(), Class::Standard, finished_at).unwrap();
        assert_eq!(job.input.body, Body::Reference(BlobRef { is_borrowed: true, ..blob }));
    }

    #[test]
    fn ids_of_jobs_of_messages_are_reserved() {
        let reserved = |id: &str| id.parse::<JobId>().unwrap().reserved_prefix();
        assert_eq!(reserved("event-1"), Some("event-"));
        assert_eq!(reserved("unreadable-1"), Some("unreadable-"));
        assert_eq!((reserved("events-1"), reserved("an-event-1")), (None, None));
    }
}
