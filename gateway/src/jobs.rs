//! The handlers of the routes about jobs.

pub(crate) mod dead;
pub(crate) mod follow;
pub(crate) mod requeue;
pub(crate) mod result;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod wait;
