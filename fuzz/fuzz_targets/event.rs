//! A message in a broker: a CloudEvent in structured mode, or attributes and data in binary mode.
//!
//! The message is a job, or the error states the reason. A job that is written as an event is read as the same job.

#![no_main]

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use queue::driver::{Event, Unreadable};
use queue::{Class, Job};

fuzz_target!(|message: &[u8]| {
    let structured = Event::from_structured(message).and_then(job_of);
    for job in [structured, job_of(binary(message))] {
        match job {
            Ok(job) => assert_eq!(job_of(Event::of(&job)), Ok(job)),
            Err(unreadable) => assert!(!unreadable.to_string().is_empty()),
        }
    }
});

fn job_of(event: Event) -> Result<Job, Unreadable> {
    let pool = "fuzz".parse().expect("a pool's name");
    event.into_job(&pool, Class::Standard, Timestamp::UNIX_EPOCH)
}

/// Each line `name: value` is an attribute. The data follows an empty line.
fn binary(message: &[u8]) -> Event {
    let text = String::from_utf8_lossy(message);
    let (head, data) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut attributes: Vec<(Cow<'static, str>, String)> = Vec::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        let name = name.to_ascii_lowercase();
        if attributes.iter().all(|(earlier, _)| *earlier != name) {
            attributes.push((name.into(), value.to_owned()));
        }
    }
    Event { attributes, data: Bytes::copy_from_slice(data.as_bytes()) }
}
