//! One program: each service, or all of them on this machine.

mod arguments;
mod connection;
mod dead;
mod demo;
mod doctor;
mod exit;
mod explain;
mod job;
mod media_type;
mod metrics;
mod output;
mod process;
mod progress;
mod record;
mod reference;
mod services;
mod settings;
mod simulate;
mod submit;
mod table;
mod up;

pub use arguments::Arguments;
pub use exit::exit_code;
pub use output::{is_closed_output, message, print_error};
pub use process::run;
pub use settings::{PoolSettings, Settings};
