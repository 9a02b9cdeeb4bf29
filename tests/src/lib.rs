//! The whole system under test: a folder, processes of the program `millrace` in it, and what they say.

mod broker;
mod process;
mod server;
mod system;
mod until;

pub use broker::{BrokerKind, BrokerUrls};
pub use process::Process;
pub use server::PrivateServer;
pub use system::{Gateway, System};
pub use until::until;
