//! What every process needs: configuration, telemetry, health, TLS, stopping.
//!
//! This crate does not know what a job is. Otherwise it would collect code that belongs elsewhere.

pub mod config;
pub mod health;
pub mod http;
pub mod stop;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod units;

pub use config::{Config, Faults, Secret, SecretUrl, Sources};
pub use health::Health;
pub use telemetry::{Telemetry, TelemetrySettings};
pub use tls::{Tls, TlsSettings};
pub use units::{ByteSize, Period};
