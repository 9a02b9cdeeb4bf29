//! The program `millrace`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cli::Arguments;
use service::stop;

fn main() -> ExitCode {
    let code = run();
    if code == ExitCode::SUCCESS {
        // A worker that was stopped while it loaded a model still has a thread inside libtorch.
        stop::end_at_once(0);
    }
    code
}

#[tokio::main]
async fn run() -> ExitCode {
    let started = Instant::now();
    match cli::run(Arguments::parse(), started).await {
        Ok(code) => code,
        Err(error) if cli::is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => {
            cli::print_error(format_args!("millrace: {}", cli::message(&error)));
            // A device thread may be inside libtorch or stuck, so no runtime or thread is waited for.
            stop::end_at_once(cli::exit_code(&error))
        }
    }
}
