//! HTTP: submit a job, follow it, fetch its result.
//!
//! | route | answer |
//! |---|---|
//! | `POST /v1/pools/{pool}/jobs` | 202 with the status of the job; with `Prefer: wait=10` 200 with its result |
//! | `GET /v1/jobs/{id}[?wait=30s]` | the status of the job |
//! | `GET /v1/jobs?pool=…&source=…&id=…` | the status of the job of an event |
//! | `GET /v1/jobs/{id}/result[?wait=30s]` | the result: bytes and media type as the model returned them |
//! | `POST /v1/jobs/{id}/cancel` | the status of the job; 409 if it has ended in another way |
//! | `GET /v1/jobs/{id}/input` | the input of the job: bytes and media type |
//! | `POST /v1/jobs/{id}/requeue` | the status of a dead or failed job that is queued again; a body is its new input |
//! | `DELETE /v1/jobs/{id}` | 204, the ended job is deleted; 409 while the job is open, or if it was cancelled |
//! | `GET /v1/dead[?pool=&state=&limit=&after=]` | jobs that ended as `dead` (or `failed`), newest ending first |
//! | `DELETE /v1/dead?pool=[&state=]` | the number of deleted jobs, at most 100, and whether there may be `more` |
//! | `GET /livez`, `/readyz`, `/metrics` | probes and metrics for an orchestrator |
//!
//! An input is a raw body with its media type, and `id`, `class` and `deadline` in the query. Or it is
//! `application/json`: an envelope that carries bytes in base64, or tensors. The body may
//! have the `Content-Encoding` gzip or zstd. Every error is a problem document
//! (RFC 9457) whose `type` starts with `urn:millrace:problem:`. One exception: hyper answers a malformed request line or
//! too large headers itself, without a body.
//!
//! `intake` accepts jobs and knows no HTTP; each door (an API by which jobs arrive) is built on it.

mod server;

mod aside;
mod paths;
mod routes;
mod settings;
mod state;

mod http;
mod intake;
mod jobs;

mod metrics;

pub use intake::Pool;
pub use jobs::JOB_ID_HEADER;
pub use server::{Gateway, run};
pub use settings::GatewaySettings;
