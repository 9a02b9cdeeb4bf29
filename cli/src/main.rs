//! The program `millrace`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cli::Arguments;

#[allow(clippy::disallowed_methods, reason = "a device thread may be stuck, and it would delay the end")]
#[tokio::main]
async fn main() -> ExitCode {
    let started = Instant::now();
    match cli::run(Arguments::parse(), started).await {
        Ok(code) => code,
        Err(error) if cli::is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millrace: {}", cli::message(&error));
            // A device thread may be inside libtorch or stuck, so no runtime or thread is waited for.
            std::process::exit(cli::exit_code(&error))
        }
    }
}
