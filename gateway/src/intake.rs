//! How jobs are taken.

pub(crate) mod confirmations;
pub(crate) mod pool;
