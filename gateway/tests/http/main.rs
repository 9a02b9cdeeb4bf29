//! The gateway over real sockets, on the embedded backend.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where something is not as it says")]

extern crate millrace_gateway as gateway;

mod doubles;
mod harness;

mod dead;
mod follow;
mod refuse;
mod stop;
mod submit;
