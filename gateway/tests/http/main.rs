//! The gateway over real sockets, with the embedded backend.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first thing that is not as expected")]

extern crate millrace_gateway as gateway;

mod doubles;
mod encoding;
mod harness;
mod load;

mod dead;
mod follow;
mod refuse;
mod stop;
mod submit;
