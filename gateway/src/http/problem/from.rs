//! The problem of each error of the intake and of the queue.

mod denials;

use model::InputFaultKind;
use queue::ErrorKind;

use crate::http::problem::{Problem, ProblemKind};
use crate::intake::IntakeError;

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Self {
        let detail = error.to_string();
        match error {
            IntakeError::UnknownPool(_) => Self::new(ProblemKind::UnknownPool, detail).field("pool"),
            IntakeError::InvalidInput(fault) => {
                let kind = match fault.kind {
                    InputFaultKind::MediaType => ProblemKind::UnsupportedMediaType,
                    InputFaultKind::Malformed | InputFaultKind::Tensor => ProblemKind::InvalidInput,
                };
                Self::new(kind, detail).field(fault.field)
            }
            IntakeError::DeadlineTooFar(_) => Self::new(ProblemKind::BadOption, detail).field("deadline"),
            IntakeError::IdConflict(id) => Self::new(ProblemKind::IdConflict, detail).field("id").job(&id),
            IntakeError::Blobs(source) => source.into(),
            IntakeError::Ledger { id, source } => {
                let is_stored_unknown = source.kind() == ErrorKind::Unavailable;
                let mut problem = Self::from(source);
                if is_stored_unknown {
                    problem.0.detail = detail;
                }
                problem.job(&id)
            }
            IntakeError::Unpublishable { job, .. } => {
                Self::new(ProblemKind::Unpublishable, detail).field("body").job(&job.id)
            }
            IntakeError::NotConfirmed(id) => Self::new(ProblemKind::NotConfirmed, detail).job(&id),
            IntakeError::NoAnswer(id) => Self::new(ProblemKind::Internal, detail).job(&id),
        }
    }
}

impl From<queue::Error> for Problem {
    /// A storage error is logged and not sent: its message may name hosts and files.
    fn from(error: queue::Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => {
                tracing::warn!(error = %error, "queue unavailable");
                Self::new(ProblemKind::Unavailable, "the queue did not answer in time; try again later")
            }
            ErrorKind::Full => {
                tracing::error!(error = %error, "storage full");
                let detail = "the queue has no room left and nothing was stored; try again when there is room";
                Self::new(ProblemKind::StorageFull, detail)
            }
            ErrorKind::Conflict => Self::new(ProblemKind::IdConflict, error.to_string()),
            ErrorKind::Refused => Self::new(ProblemKind::Refused, error.to_string()),
            ErrorKind::Denied => {
                denials::log(&error);
                let detail = "the queue does not accept requests of this gateway; the gateway's log has the details";
                Self::new(ProblemKind::Unavailable, detail)
            }
            ErrorKind::Incompatible | ErrorKind::Corrupt | ErrorKind::Ended => {
                tracing::error!(error = %error, "stored data unreadable");
                Self::new(ProblemKind::Internal, "stored data cannot be read; the gateway's log has the details")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
    use axum::response::IntoResponse;

    use model::InputFault;

    use super::*;

    #[test]
    fn each_kind_of_queue_error_has_its_status() {
        for (kind, status) in [
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Full, 507),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Refused, 400),
            (ErrorKind::Denied, 503),
            (ErrorKind::Incompatible, 500),
            (ErrorKind::Corrupt, 500),
            (ErrorKind::Ended, 500),
        ] {
            let response = Problem::from(queue::Error::new(kind, "why")).into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503);
        }
    }

    #[test]
    fn a_denial_does_not_show_the_text_of_the_backend() {
        let problem = Problem::from(queue::Error::new(ErrorKind::Denied, "redis: 10.0.0.7: NOAUTH"));
        assert!(!problem.0.detail.contains("NOAUTH") && !problem.0.detail.contains("10.0.0.7"));
    }

    #[test]
    fn an_input_fault_names_its_field() {
        let fault = InputFault::new(InputFaultKind::Tensor, "inputs[0].shape", "[1, 2] is not [1, 3]");
        let problem = Problem::from(IntakeError::from(fault));
        assert_eq!(problem.kind(), ProblemKind::InvalidInput);
        assert_eq!(problem.0.field.as_deref(), Some("inputs[0].shape"));
        assert_eq!(problem.0.detail, "inputs[0].shape: [1, 2] is not [1, 3]");
    }
}
