//! The whole system under test: a folder, processes of the program `millrace` in it, and their output.

use std::path::{Path, PathBuf};

mod broker;
mod process;
mod scaler;
mod server;
mod system;
mod until;

pub use broker::{BrokerKind, BrokerUrls};
pub use process::{Process, program};
pub use scaler::Scaler;
pub use server::PrivateServer;
pub use system::{Gateway, System};
pub use until::until;

/// The folder of this repository. Cargo's environment variable at run time wins over the one at compile time, because a
/// cached build may come from another folder.
pub fn repository() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).join("..")
}
