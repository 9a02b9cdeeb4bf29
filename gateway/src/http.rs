//! HTTP alone: reading requests and writing answers.

pub(crate) mod body;
pub(crate) mod extract;
pub(crate) mod job_request;
pub(crate) mod observe;
pub(crate) mod options;
pub(crate) mod prefer;
pub(crate) mod problem;
pub(crate) mod trace;
