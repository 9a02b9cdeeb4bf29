//! A JSON envelope, by which a client submits an input with options.
//!
//! The problem of a rejected envelope has a sentence, and names a field. A request that is written as an envelope is
//! read as the same request.

#![no_main]
// The included files also have code for other routes.
#![allow(dead_code)]

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use service::Period;

mod http;
#[path = "../../../gateway/src/intake/submission.rs"]
mod intake;

use http::job_request::JobRequest;
use http::problem::Problem;

fuzz_target!(|body: &[u8]| {
    match read(Bytes::copy_from_slice(body)) {
        Ok(request) => {
            assert!(!request.bytes.is_empty());
            HeaderValue::from_str(&request.media_type).expect("a media type is the value of a header");
            let again = read(written(&request)).expect("an envelope of a request is accepted");
            assert_eq!(again.options, request.options);
            assert_eq!((again.media_type, again.bytes), (request.media_type, request.bytes));
        }
        Err(problem) => assert!(!problem.detail.is_empty() && problem.field.is_some(), "{problem:?}"),
    }
});

fn read(body: Bytes) -> Result<JobRequest, Problem> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    JobRequest::read(&Uri::from_static("/v1/pools/fuzz/jobs"), &headers, body)
}

fn written(request: &JobRequest) -> Bytes {
    let JobRequest { options, media_type, bytes, .. } = request;
    let envelope = json!({
        "id": options.id.as_ref().map(|id| id.as_str()),
        "class": options.class.map(|class| class.as_str()),
        "deadline": options.deadline.map(|deadline| Period::new(deadline).to_string()),
        "input": {"media_type": media_type, "data": BASE64_STANDARD.encode(bytes)},
    });
    envelope.to_string().into()
}
