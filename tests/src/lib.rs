//! The whole system under test: a folder, processes of the program `millrace` in it, and what they say.

mod process;
mod system;
mod until;

pub use process::Process;
pub use system::{Gateway, System};
pub use until::until;
