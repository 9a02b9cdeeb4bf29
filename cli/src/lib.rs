//! One program: each service, or all of them on this machine.

mod admission;
mod arguments;
mod demo;
mod process;
mod services;
mod settings;
mod submit;
mod up;

pub use arguments::Arguments;
pub use process::run;
pub use settings::{PoolSettings, Settings};
