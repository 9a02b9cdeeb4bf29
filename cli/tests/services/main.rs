//! `millrace` as its operator sees it: running services, and the commands that call them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod certificates;
mod gateway;
mod https;
mod jobs;
mod pipes;
mod service;
