//! The handlers of the routes about jobs.

pub(crate) mod dead;
pub(crate) mod delete;
pub(crate) mod follow;
pub(crate) mod requeue;
pub(crate) mod submit;

mod cleanup;
mod result;
mod status;
mod wait;

pub use status::JOB_ID_HEADER;
