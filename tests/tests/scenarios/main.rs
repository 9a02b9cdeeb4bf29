//! The whole system, as its users and its enemies see it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a scenario that cannot go on has failed")]

mod arrows;
mod away;
mod bad_input;
mod big_input;
#[cfg(feature = "torch")]
mod digits;
mod drain;
mod keda;
mod killer;
mod ledger;
#[cfg(feature = "torch")]
mod outside;
mod scale;
