//! Why the intake did not accept a job.

use std::time::Duration;

use model::{InputFault, InputFaultKind};
use queue::{Job, JobId, PoolName};

/// Why the intake did not accept a job. A door turns each kind into an answer of its protocol.
///
/// The message is for the client and contains no host or file of this installation. The sources are for the log and may
/// contain them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IntakeError {
    #[error("pool: {:?} is not configured", .0.as_str())]
    UnknownPool(PoolName),

    /// The model of the pool does not take the input.
    #[error(transparent)]
    InvalidInput(#[from] InputFault),

    #[error("deadline: {0:?} from now is later than the last time that can be stored")]
    DeadlineTooFar(Duration),

    #[error("id: {:?} belongs to a job with another pool or input", .0.as_str())]
    IdConflict(JobId),

    /// The input was not stored. No record was opened.
    #[error("the blob store did not store the input")]
    Blobs(#[source] queue::Error),

    /// The ledger returned an error. The job may be stored, and may run; a repetition with the same id is safe.
    #[error("the queue did not confirm job {id}, which may still run; repeating the request with this id is safe")]
    Ledger { id: JobId, source: queue::Error },

    /// The broker can never take the job, because it is too large.
    #[error("job {}: the broker does not take it: {source}", .job.id)]
    Unpublishable {
        job: Box<Job>,
        source: queue::Error,
        /// Whether the record of the job refers to the input of this submission.
        is_input_used: bool,
    },

    /// The job is stored, but the broker did not confirm it.
    #[error(
        "job {0} is stored but the broker did not confirm it; it may still run, and repeating the request with this \
         id is safe"
    )]
    NotConfirmed(JobId),

    /// The intake failed. The job may be stored, and may run.
    #[error("the gateway failed to accept the job; its log has the details")]
    NoAnswer(JobId),
}

impl IntakeError {
    /// The error of a door whose requests name the media type `field`.
    pub(crate) fn with_media_type_field(mut self, field: &str) -> Self {
        if let Self::InvalidInput(fault) = &mut self
            && fault.kind == InputFaultKind::MediaType
        {
            field.clone_into(&mut fault.field);
        }
        self
    }
}
