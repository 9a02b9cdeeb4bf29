//! HTTP: reading requests, and answering errors as problem documents.

pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod encoding;
pub(crate) mod extract;
pub(crate) mod job_request;
pub(crate) mod observe;
pub(crate) mod options;
pub(crate) mod prefer;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod rest;
pub(crate) mod trace;
