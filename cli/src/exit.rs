//! The exit codes of the program. `docs/command-line.md` lists them.

use std::process::ExitCode;

/// The command has done its work, and what it found is bad: a job without success, a severe risk, a broken requirement.
const BAD: u8 = 3;

/// The job has not ended yet.
const NOT_ENDED: u8 = 4;

/// A bad answer of a command that has done its work. Its text goes to standard error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    /// What was found.
    #[error("{0}")]
    Bad(String),
    /// The job that has not ended.
    #[error("{0}")]
    NotEnded(String),
}

/// The exit code of a command whose output has the answer already.
pub(crate) fn of_answer(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { BAD.into() }
}

/// The exit code of a process that ends with `error`. A command that could not do its work ends with 1.
pub fn exit_code(error: &anyhow::Error) -> i32 {
    if let Some(answer) = error.downcast_ref::<BadAnswer>() {
        return i32::from(match answer {
            BadAnswer::Bad(_) => BAD,
            BadAnswer::NotEnded(_) => NOT_ENDED,
        });
    }
    error.downcast_ref::<worker::WorkerError>().map_or(1, |error| i32::from(error.exit_code()))
}
