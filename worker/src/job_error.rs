//! The kinds of job errors that a worker writes to the ledger.

use queue::JobError;

/// The input cannot be decoded or does not fit the model. The job fails without a retry.
pub(crate) const BAD_INPUT: &str = "bad_input";
/// The model failed, or its output cannot be presented.
pub(crate) const MODEL_ERROR: &str = "model_error";
/// The input could not be read from the blob store.
pub(crate) const INPUT_UNREADABLE: &str = "input_unreadable";
/// The output could not be written to the blob store.
pub(crate) const OUTPUT_UNWRITABLE: &str = "output_unwritable";
/// The message in the broker is no job.
pub(crate) const UNREADABLE_MESSAGE: &str = "unreadable_message";

/// An error of `kind`.
pub(crate) fn job_error(kind: &str, message: impl Into<String>) -> JobError {
    JobError { kind: kind.to_owned(), message: message.into() }
}
