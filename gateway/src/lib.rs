//! HTTP: submit a job, follow it, fetch its result.
//!
//! | route | answer |
//! |---|---|
//! | `POST /v1/pools/{pool}/jobs` | 202 with the job's status; with `Prefer: wait=10` 200 with its result |
//! | `GET /v1/jobs/{id}[?wait=30s]` | the job's status |
//! | `GET /v1/jobs?pool=…&source=…&id=…` | the same of the job that an event asked for |
//! | `GET /v1/jobs/{id}/result[?wait=30s]` | the result, bytes and media type as the model gave them |
//! | `POST /v1/jobs/{id}/cancel` | the job's status; 409 if it has ended otherwise |
//! | `GET /v1/jobs/{id}/input` | the job's input, bytes and media type |
//! | `POST /v1/jobs/{id}/requeue` | the status of a dead or failed job that is queued again; a body is its new input |
//! | `DELETE /v1/jobs/{id}` | 204, an ended job is forgotten; 409 while it is open, and of one that was cancelled |
//! | `GET /v1/dead[?pool=&state=&limit=&after=]` | the jobs that ended as `dead` (or `failed`), the last first |
//! | `DELETE /v1/dead?pool=[&state=]` | how many were forgotten, a hundred at most, and whether there may be `more` |
//! | `GET /livez`, `/readyz`, `/metrics` | what an orchestrator asks |
//!
//! An input comes as a raw body with its media type, and `id`, `class` and `deadline` in the query; or as
//! `application/json`, an envelope that carries bytes in base64 or tensors. Every error is a problem document
//! (RFC 9457) whose `type` starts with `urn:millrace:problem:`. Only what is not HTTP at all (a malformed request line,
//! headers over hyper's limits) is answered below us, without a body.

mod server;

mod admission;
mod settings;

mod http;
mod intake;
mod jobs;

mod metrics;

pub use admission::{Admission, Refusal, RefusalKind};
pub use http::job_request::TENSORS_MEDIA_TYPE;
pub use intake::pool::Pool;
pub use jobs::status::JOB_ID_HEADER;
pub use server::{Gateway, run};
pub use settings::GatewaySettings;
