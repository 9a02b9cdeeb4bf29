//! One program: each service, or all of them on this machine.

mod arguments;
mod connection;
mod dead;
mod demo;
mod doctor;
mod explain;
mod media_type;
mod metrics;
mod output;
mod process;
mod reference;
mod services;
mod settings;
mod simulate;
mod submit;
mod table;
mod up;

pub use arguments::Arguments;
pub use output::{is_closed_output, message};
pub use process::{exit_code, run};
pub use settings::{PoolSettings, Settings};
