//! What a policy would have made of a load, in virtual time: the scaler's own policies and [`crate::replicas`], with
//! workers that load and batch as measured.

pub mod pool;
pub mod trace;
