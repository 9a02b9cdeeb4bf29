//! The request that submits a job: an input and options, as a raw body or as a JSON envelope.

use std::borrow::Cow;
use std::fmt::Display;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use model::{TENSORS_MEDIA_TYPE, media_type_essence};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::http::options;
use crate::http::problem::{Problem, ProblemKind};
use crate::intake::JobOptions;

/// The media type of bytes of an unknown type, such as a body without a `Content-Type` (RFC 9110, section 8.3).
pub(crate) const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

/// The media type of an envelope.
const JSON_MEDIA_TYPE: &str = "application/json";

/// An input and options. The input is not checked against a model yet.
#[derive(Debug)]
pub(crate) struct JobRequest {
    pub(crate) options: JobOptions,
    pub(crate) media_type: String,
    /// The part of the request that gave the media type, for an error about it.
    pub(crate) media_type_field: &'static str,
    pub(crate) bytes: Bytes,
}

/// Input and options in one JSON document. It has either `input` or `inputs`: tensors in the terms of the Open Inference
/// Protocol.
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

/// An input whose bytes are in base64.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodedInput<'a> {
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

impl JobRequest {
    /// Reads a request with its whole body. The input in it is not empty.
    pub(crate) fn read(uri: &Uri, headers: &HeaderMap, body: Bytes) -> Result<Self, Problem> {
        let mut options = options::from_query(uri)?;
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
        if media_type_essence(media_type) != JSON_MEDIA_TYPE {
            let media_type = media_type.trim().to_owned();
            return Ok(Self { options, media_type, media_type_field: "content-type", bytes: body });
        }
        let envelope = Envelope::read(&body)?;
        for (key, value) in [("id", &envelope.id), ("class", &envelope.class), ("deadline", &envelope.deadline)] {
            if let Some(value) = value {
                options::set(&mut options, key, value)?;
            }
        }
        let media_type_field = if envelope.input.is_some() { "input.media_type" } else { "inputs" };
        let (media_type, bytes) = envelope.into_input()?;
        Ok(Self { options, media_type, media_type_field, bytes })
    }
}

impl<'a> Envelope<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Problem> {
        // Some programs begin a UTF-8 text with a byte order mark, which is no part of the JSON (RFC 8259, section 8.1).
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        // The derived code also accepts a list with the members in order, so a list must be refused here.
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
    fn into_input(self) -> Result<(String, Bytes), Problem> {
        match (self.input, self.inputs) {
            (Some(_), Some(_)) => Err(invalid("input", "stands beside inputs; give one of them")),
            (None, None) => Err(invalid("input", "is missing; give input or inputs")),
            (Some(input), None) => input.decode(),
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

impl EncodedInput<'_> {
    /// Media type and bytes.
    fn decode(self) -> Result<(String, Bytes), Problem> {
        let bytes = BASE64_STANDARD
            .decode(self.data.as_bytes())
            .map_err(|error| invalid("input.data", format_args!("is not base64: {error}")))?;
        if bytes.is_empty() {
            let detail = "input.data: is empty; send the input";
            return Err(Problem::new(ProblemKind::EmptyBody, detail).field("input.data"));
        }
        // The media type becomes a header when the input is served, so it must be a valid header value.
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        if self.media_type.trim().is_empty() || !self.media_type.chars().all(plain) {
            return Err(invalid("input.media_type", "is not a media type such as image/png"));
        }
        Ok((self.media_type.trim().to_owned(), bytes.into()))
    }
}

fn invalid(field: &str, reason: impl Display) -> Problem {
    Problem::new(ProblemKind::InvalidInput, format!("{field}: {reason}")).field(field)
}

fn malformed(error: serde_json::Error) -> Problem {
    Problem::new(ProblemKind::MalformedJson, format!("body: {error}")).field("body")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(media_type: &str, body: &str) -> Result<JobRequest, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
        let uri = "/v1/pools/p/jobs".parse().unwrap();
        JobRequest::read(&uri, &headers, Bytes::copy_from_slice(body.as_bytes()))
    }

    fn kind(body: &str) -> ProblemKind {
        read("application/json", body).unwrap_err().kind()
    }

    #[test]
    fn a_raw_body_is_the_input() {
        let request = read("image/png", "bytes").unwrap();
        assert_eq!((request.media_type.as_str(), &request.bytes[..]), ("image/png", &b"bytes"[..]));
    }

    #[test]
    fn an_envelope_carries_bytes_and_options() {
        let body = r#"{"id":"a","class":"batch","deadline":"5s","input":{"media_type":"text/plain","data":"aGk="}}"#;
        let request = read("Application/JSON; charset=utf-8", body).unwrap();
        assert_eq!(request.media_type, "text/plain");
        assert_eq!(&request.bytes[..], b"hi");
        assert_eq!(request.options.id.unwrap().as_str(), "a");
        assert_eq!(request.options.class, Some(queue::Class::Batch));
        assert_eq!(request.options.deadline, Some(std::time::Duration::from_secs(5)));
    }

    #[test]
    fn tensors_are_passed_on_unchanged() {
        let body = r#"{"inputs": [{"name":"x", "shape":[1], "datatype":"FP32", "data":[0.10]}]}"#;
        let request = read("application/json", body).unwrap();
        assert_eq!(request.media_type, TENSORS_MEDIA_TYPE);
        let expected = r#"{"inputs":[{"name":"x", "shape":[1], "datatype":"FP32", "data":[0.10]}]}"#;
        assert_eq!(request.bytes, expected);
    }

    #[test]
    fn a_byte_order_mark_before_the_json_is_ignored() {
        let request = read("application/json", "\u{feff}{\"inputs\":[]}").unwrap();
        assert_eq!(request.bytes, r#"{"inputs":[]}"#);
    }

    #[test]
    fn json_that_is_not_an_object_is_refused() {
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
        assert_eq!(kind(r#"{"id":"event-1","inputs":[]}"#), ProblemKind::BadId);
        assert_eq!(kind(r#"{"class":"gold","inputs":[]}"#), ProblemKind::BadOption);
        assert_eq!(kind(r#"{"input":{"media_type":"a/b","data":""}}"#), ProblemKind::EmptyBody);
        assert_eq!(kind(""), ProblemKind::EmptyBody);
    }
}
