//! `millrace` with TLS, as its operator sees it: the services and the commands that call them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod certificates;
mod client;
mod gateway;
mod service;
