//! The program `millrace`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cli::Arguments;

#[tokio::main]
async fn main() -> ExitCode {
    let started = Instant::now();
    match cli::run(Arguments::parse(), started).await {
        Ok(code) => code,
        Err(error) => {
            // Every cause is in the message of what it caused.
            eprintln!("millrace: {error}");
            ExitCode::FAILURE
        }
    }
}
