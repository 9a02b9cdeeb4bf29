//! A job: one inference request with its input and output.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{BlobRef, Error, ErrorKind};

/// One inference request.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Unique in the ledger: two submissions of the same id are one job.
    pub id: JobId,
    /// The pool whose workers run it.
    pub pool: PoolName,
    /// Its priority within the pool.
    pub class: Class,
    /// The input of the model.
    pub input: Input,
    /// When it was submitted, to the millisecond.
    pub created_at: Timestamp,
    /// A job that has not started by then ends as expired.
    pub deadline_at: Option<Timestamp>,
    /// The number of attempts, at least 1. After that many failed ones the job ends as dead.
    pub max_attempts: u32,
    /// How long its record and result are stored after its end. The ledger may store a dead or failed job longer.
    pub retention: Duration,
    /// The W3C trace context it belongs to.
    pub trace_parent: Option<String>,
    /// The event that requested it. `None`: it was submitted under its own id.
    pub origin: Option<Origin>,
}

/// The identity of a CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The event's `source`.
    pub source: String,
    /// The event's `id`.
    pub id: String,
}

/// The input of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The media type of `body`, as in an HTTP `Content-Type`.
    pub media_type: String,
    /// The bytes, untouched.
    pub body: Body,
}

/// The output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The media type of `body`.
    pub media_type: String,
    /// The bytes.
    pub body: Body,
}

/// Bytes that travel with the job, or a reference to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The bytes themselves.
    Inline(Bytes),
    /// An object in the blob store.
    Reference(BlobRef),
}

/// The priority of a job. Workers take the most urgent class first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Workers take it before all other classes.
    Premium,
    /// The default.
    #[default]
    Standard,
    /// Workers take it after all other classes.
    Batch,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Premium, Self::Standard, Self::Batch];

    /// The name used on the wire and in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Premium => "premium",
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
            Error::new(ErrorKind::Refused, format_args!("class: {text:?} is not one of premium, standard, batch"))
        })
    }
}

/// Names a job: a UUIDv7, or the client's own id of 1 to 128 characters out of `A–Z a–z 0–9 . _ ~ : -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// The most characters an id may have.
    pub const MAX_LENGTH: usize = 128;

    /// A new UUIDv7: unique, and ordered by time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names a pool: 1 to 63 characters out of `a–z 0–9 -`. The first and the last are a letter or a digit. So the name is
/// a DNS label, which can also name a queue, a topic and a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolName(String);

impl PoolName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._~:-".contains(c);
        if text.is_empty() || text.len() > Self::MAX_LENGTH || !text.chars().all(allowed) {
            let rule = "is not 1 to 128 characters out of A-Z a-z 0-9 . _ ~ : -";
            return Err(Error::new(ErrorKind::Refused, format_args!("id: {:?} {rule}", shortened(text))));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for PoolName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let edged = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > 63 || edged || !text.chars().all(allowed) {
            let rule = "is not 1 to 63 characters out of a-z 0-9 -, starting and ending with a letter or digit";
            return Err(Error::new(ErrorKind::Refused, format_args!("pool: {:?} {rule}", shortened(text))));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An error message must stay readable for every input.
fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(77).chain("...".chars()).collect() }
}

macro_rules! text_name {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

text_name!(JobId);
text_name!(PoolName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_short_plain_word() {
        for good in ["a", "order-17", "A.b_c~d:e", &"x".repeat(128), JobId::generate().as_str()] {
            assert_eq!(good.parse::<JobId>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a/b", "a b", "é", "a\n", &"x".repeat(129)] {
            let error = bad.parse::<JobId>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().starts_with("id: "), "{error}");
            assert!(error.to_string().len() < 200, "{error}");
        }
    }

    #[test]
    fn a_pool_name_is_a_dns_label() {
        for good in ["a", "resnet50", "a-1", &"x".repeat(63)] {
            assert_eq!(good.parse::<PoolName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"x".repeat(64)] {
            assert_eq!(bad.parse::<PoolName>().unwrap_err().kind(), ErrorKind::Refused);
        }
    }

    #[test]
    fn classes_are_ordered_by_urgency_and_read_back_by_name() {
        assert!(Class::ALL.is_sorted());
        for class in Class::ALL {
            assert_eq!(class.as_str().parse::<Class>().unwrap(), class);
        }
        assert!("Premium".parse::<Class>().is_err());
    }
}
