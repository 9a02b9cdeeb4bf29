//! The whole system, as its users and its enemies see it.

mod arrows;
mod bad_input;
mod big_input;
#[cfg(feature = "torch")]
mod digits;
mod drain;
mod ledger;
mod scale;
