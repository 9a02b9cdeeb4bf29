//! The paths of the gateway: patterns for the router, and links to one job.

use queue::JobId;

pub(crate) const POOL_JOBS: &str = "/v1/pools/{pool}/jobs";
pub(crate) const JOB_OF_EVENT: &str = "/v1/jobs";
pub(crate) const JOB: &str = "/v1/jobs/{id}";
pub(crate) const RESULT: &str = "/v1/jobs/{id}/result";
pub(crate) const CANCEL: &str = "/v1/jobs/{id}/cancel";
pub(crate) const INPUT: &str = "/v1/jobs/{id}/input";
pub(crate) const REQUEUE: &str = "/v1/jobs/{id}/requeue";
pub(crate) const DEAD: &str = "/v1/dead";

/// The path of a job. An id needs no percent-encoding: it has only unreserved characters and `:`.
pub(crate) fn job(id: &JobId) -> String {
    ["/v1/jobs/", id.as_str()].concat()
}
