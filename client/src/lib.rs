//! Talk to a gateway and a scaler: submit a job, wait for its result, manage dead jobs, explain the size of a pool.
//!
//! Both speak HTTP, or HTTPS with [`Tls`]. The command line, the whole-system tests and the benchmark use this crate,
//! which uses no other crate of this project.

mod address;
mod connection;
mod dead;
mod error;
mod fault;
mod gateway;
mod http;
mod run;
mod scaler;
mod tls;

pub use connection::{Connection, ConnectionError};
pub use dead::{BadEnding, DeadJobs};
pub use error::{Error, Refusal};
pub use fault::TlsFault;
pub use gateway::{Accepted, Gateway, NewJob, Payload};
pub use run::NoResult;
pub use scaler::{Explanation, Scaler};
pub use tls::{PemError, Tls, plain_http};
