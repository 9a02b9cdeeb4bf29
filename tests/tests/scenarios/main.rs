//! The whole system: correct use, wrong use and failures. Also the rules of the source code.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a scenario that cannot continue has failed")]

mod arrows;
mod away;
mod bad_input;
mod big_input;
mod circles;
#[cfg(feature = "torch")]
mod digits;
mod drain;
mod keda;
mod killer;
mod ledger;
mod metrics;
mod outages;
#[cfg(feature = "torch")]
mod outside;
mod scale;
mod sizes;
mod traces;
