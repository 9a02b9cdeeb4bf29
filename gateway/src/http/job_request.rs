//! What a client submits: an input and its options, from a raw body or from a JSON envelope.

use std::borrow::Cow;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::http::options::Options;
use crate::http::problem::{Problem, ProblemKind};

/// The media type under which the tensors of an envelope (`{"inputs": [...]}`, in the terms of the Open Inference
/// Protocol) go on to the worker.
pub const TENSORS_MEDIA_TYPE: &str = "application/vnd.millrace.tensors+json";

/// What a body without a `Content-Type` is (RFC 9110, section 8.3).
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

/// An input and its options; whether the pool takes it is not known yet.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) options: Options,
    pub(crate) media_type: String,
    pub(crate) body: Bytes,
}

/// A submission in one JSON document. Exactly one of `input` and `inputs` is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    class: Option<Cow<'a, str>>,
    #[serde(borrow)]
    deadline: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input: Option<EncodedInput<'a>>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
}

/// Bytes in base64.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodedInput<'a> {
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

impl Submission {
    /// Reads a request whose body is there. The input it gives is not empty.
    pub(crate) fn read(uri: &Uri, headers: &HeaderMap, body: Bytes) -> Result<Self, Problem> {
        let mut options = Options::from_query(uri)?;
        if body.is_empty() {
            return Err(Problem::new(ProblemKind::EmptyBody, "body: is empty; send the input").field("body"));
        }
        let media_type = match headers.get(CONTENT_TYPE) {
            None => UNKNOWN_MEDIA_TYPE,
            Some(value) => value.to_str().map_err(|_| {
                let detail = "content-type: is not plain text";
                Problem::new(ProblemKind::UnsupportedMediaType, detail).field("content-type")
            })?,
        };
        if !is_json(media_type) {
            return Ok(Self { options, media_type: media_type.trim().to_owned(), body });
        }
        let envelope = Envelope::read(&body)?;
        for (key, value) in [("id", &envelope.id), ("class", &envelope.class), ("deadline", &envelope.deadline)] {
            if let Some(value) = value {
                options.set(key, value)?;
            }
        }
        let (media_type, body) = envelope.input()?;
        Ok(Self { options, media_type, body })
    }
}

impl<'a> Envelope<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Problem> {
        // Derived code takes a list for the members in their order, and speaks of it where something is wrong.
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            serde_json::from_slice::<IgnoredAny>(body).map_err(malformed)?;
            return Err(invalid("body", "is not a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(body);
        let envelope = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let error = error.into_inner();
            match error.classify() {
                Category::Data if path == "." => invalid("body", error),
                Category::Data => invalid(&path, error),
                _ => malformed(error),
            }
        })?;
        json.end().map_err(malformed)?;
        Ok(envelope)
    }

    /// Media type and bytes of the input.
    fn input(self) -> Result<(String, Bytes), Problem> {
        match (self.input, self.inputs) {
            (Some(_), Some(_)) => Err(invalid("input", "stands beside inputs; give one of them")),
            (None, None) => Err(invalid("input", "is missing; give input or inputs")),
            (Some(input), None) => {
                let bytes = BASE64_STANDARD
                    .decode(input.data.as_bytes())
                    .map_err(|error| invalid("input.data", format_args!("is not base64: {error}")))?;
                if bytes.is_empty() {
                    let detail = "input.data: is empty; send the input";
                    return Err(Problem::new(ProblemKind::EmptyBody, detail).field("input.data"));
                }
                let plain = |c: char| c.is_ascii_graphic() || c == ' ';
                if input.media_type.trim().is_empty() || !input.media_type.chars().all(plain) {
                    return Err(invalid("input.media_type", "is not a media type such as image/png"));
                }
                Ok((input.media_type.trim().to_owned(), bytes.into()))
            }
            (None, Some(inputs)) => {
                if !inputs.get().starts_with('[') {
                    return Err(invalid("inputs", "is not a list of tensors"));
                }
                let body = ["{\"inputs\":", inputs.get(), "}"].concat();
                Ok((TENSORS_MEDIA_TYPE.to_owned(), body.into()))
            }
        }
    }
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn invalid(field: &str, reason: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::InvalidInput, format!("{field}: {reason}")).field(field)
}

fn malformed(error: serde_json::Error) -> Problem {
    Problem::new(ProblemKind::MalformedJson, format!("body: {error}")).field("body")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(media_type: &str, body: &str) -> Result<Submission, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
        let uri = "/v1/pools/p/jobs".parse().unwrap();
        Submission::read(&uri, &headers, Bytes::copy_from_slice(body.as_bytes()))
    }

    fn kind(body: &str) -> ProblemKind {
        read("application/json", body).unwrap_err().kind()
    }

    #[test]
    fn a_raw_body_is_the_input_itself() {
        let submission = read("image/png", "bytes").unwrap();
        assert_eq!((submission.media_type.as_str(), &submission.body[..]), ("image/png", &b"bytes"[..]));
    }

    #[test]
    fn an_envelope_carries_bytes_and_options() {
        let body = r#"{"id":"a","class":"batch","deadline":"5s","input":{"media_type":"text/plain","data":"aGk="}}"#;
        let submission = read("Application/JSON; charset=utf-8", body).unwrap();
        assert_eq!(submission.media_type, "text/plain");
        assert_eq!(&submission.body[..], b"hi");
        assert_eq!(submission.options.id.unwrap().as_str(), "a");
        assert_eq!(submission.options.class, Some(queue::Class::Batch));
        assert_eq!(submission.options.deadline, Some(std::time::Duration::from_secs(5)));
    }

    #[test]
    fn tensors_go_on_as_they_were_written() {
        let body = r#"{"inputs": [{"name":"x", "shape":[1], "datatype":"FP32", "data":[0.10]}]}"#;
        let submission = read("application/json", body).unwrap();
        assert_eq!(submission.media_type, TENSORS_MEDIA_TYPE);
        let expected = r#"{"inputs":[{"name":"x", "shape":[1], "datatype":"FP32", "data":[0.10]}]}"#;
        assert_eq!(submission.body, expected);
    }

    #[test]
    fn json_that_is_no_object_is_refused_as_that() {
        for body in ["[1]", " []", "3", "\"x\"", "null", r#"["a","batch","5s"]"#] {
            let problem = read("application/json", body).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidInput, "{body}");
            let text = format!("{problem:?}");
            assert!(text.contains("\"body: is not a JSON object\""), "{body}: {text}");
        }
    }

    #[test]
    fn each_fault_of_an_envelope_has_its_problem() {
        for malformed in ["{", "nonsense", "{} {}", "\"a", "{\"inputs\":[1,}"] {
            assert_eq!(kind(malformed), ProblemKind::MalformedJson, "{malformed}");
        }
        for invalid in [
            "[]",
            "{}",
            r#"{"inputs":[],"input":{"media_type":"a/b","data":"aGk="}}"#,
            r#"{"inputs":{}}"#,
            r#"{"imput":1}"#,
            r#"{"input":{"media_type":"a/b"}}"#,
            r#"{"input":{"media_type":"a/b","data":"*"}}"#,
            r#"{"input":{"media_type":"","data":"aGk="}}"#,
            r#"{"input":{"media_type":"a\nb","data":"aGk="}}"#,
            r#"{"id":7,"inputs":[]}"#,
        ] {
            assert_eq!(kind(invalid), ProblemKind::InvalidInput, "{invalid}");
        }
        assert_eq!(kind(r#"{"id":"a/b","inputs":[]}"#), ProblemKind::BadId);
        assert_eq!(kind(r#"{"class":"gold","inputs":[]}"#), ProblemKind::BadOption);
        assert_eq!(kind(r#"{"input":{"media_type":"a/b","data":""}}"#), ProblemKind::EmptyBody);
        assert_eq!(kind(""), ProblemKind::EmptyBody);
    }
}
