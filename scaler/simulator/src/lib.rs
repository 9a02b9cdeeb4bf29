//! Runs scaling policies over a load in virtual time: the scaler's own policies and [`policy::replicas`], with workers
//! whose loading and batch times are given.
//!
//! ```text
//! scenario → trace (from a seed, or a reader) ┐
//!          → decider (a policy, KEDA, the HPA) ├→ pool → comparison → report, plot
//!          → worker, objective                 ┘
//! ```

pub mod comparison;
pub mod conditions;
pub mod decider;
pub mod figures;
pub mod load;
pub mod oracle;
pub mod outcome;
pub mod peers;
pub mod plot;
pub mod pool;
pub mod reader;
pub mod report;
pub mod scenario;
pub mod suite;
pub mod trace;
pub mod view;
pub mod worker;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
