//! The kinds of problems, with their status and title.

use axum::http::StatusCode;

/// The kind of a problem. Its name is the last part of the document's `type`, on which a client program can decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    UnknownRoute,
    MethodNotAllowed,
    UnknownPool,
    UnknownJob,
    BadId,
    BadPath,
    BadQuery,
    BadOption,
    MalformedJson,
    EmptyBody,
    BodyTooLarge,
    BodyTimeout,
    BodyUnreadable,
    UnsupportedMediaType,
    UnsupportedEncoding,
    InvalidInput,
    IdConflict,
    Refused,
    Unpublishable,
    JobNotEnded,
    JobEnded,
    JobFailed,
    JobCancelled,
    JobExpired,
    JobDead,
    JobNotDead,
    InputDeleted,
    RecordNeeded,
    NotConfirmed,
    Unavailable,
    Busy,
    StorageFull,
    Internal,
}

impl ProblemKind {
    /// Name, status and title.
    pub(crate) fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::UnknownRoute => ("unknown-route", S::NOT_FOUND, "this path does not exist"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", S::METHOD_NOT_ALLOWED, "this path does not allow this method")
            }
            Self::UnknownPool => ("unknown-pool", S::NOT_FOUND, "no such pool"),
            Self::UnknownJob => ("unknown-job", S::NOT_FOUND, "no such job"),
            Self::BadId => ("bad-id", S::BAD_REQUEST, "not a valid job id"),
            Self::BadPath => ("bad-path", S::BAD_REQUEST, "the path cannot be read"),
            Self::BadQuery => ("bad-query", S::BAD_REQUEST, "the query cannot be used"),
            Self::BadOption => ("bad-option", S::BAD_REQUEST, "an option of the job is wrong"),
            Self::MalformedJson => ("malformed-json", S::BAD_REQUEST, "the body is not JSON"),
            Self::EmptyBody => ("empty-body", S::BAD_REQUEST, "the input is empty"),
            Self::BodyTooLarge => ("body-too-large", S::PAYLOAD_TOO_LARGE, "the body is too large"),
            Self::BodyTimeout => ("body-timeout", S::REQUEST_TIMEOUT, "the body arrived too slowly"),
            Self::BodyUnreadable => ("body-unreadable", S::BAD_REQUEST, "the body cannot be read"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "the model does not take this media type")
            }
            Self::UnsupportedEncoding => {
                ("unsupported-encoding", S::UNSUPPORTED_MEDIA_TYPE, "the gateway does not decode this encoding")
            }
            Self::InvalidInput => ("invalid-input", S::UNPROCESSABLE_ENTITY, "the input is not valid"),
            Self::IdConflict => ("id-conflict", S::CONFLICT, "the id belongs to another job"),
            Self::Refused => ("refused", S::BAD_REQUEST, "the request was refused"),
            Self::Unpublishable => ("unpublishable", S::PAYLOAD_TOO_LARGE, "the job is too large for the broker"),
            Self::JobNotEnded => ("job-not-ended", S::CONFLICT, "the job has not ended yet"),
            Self::JobEnded => ("job-ended", S::CONFLICT, "the job has ended already"),
            Self::JobFailed => ("job-failed", S::UNPROCESSABLE_ENTITY, "the job failed"),
            Self::JobCancelled => ("job-cancelled", S::GONE, "the job was cancelled"),
            Self::JobExpired => ("job-expired", S::GONE, "the job's deadline passed"),
            Self::JobDead => ("job-dead", S::GONE, "the job has no attempts left"),
            Self::JobNotDead => ("job-not-dead", S::CONFLICT, "the job is neither dead nor failed"),
            Self::InputDeleted => ("input-deleted", S::GONE, "the input is deleted"),
            Self::RecordNeeded => ("record-needed", S::CONFLICT, "the job's record is still needed"),
            Self::NotConfirmed => ("not-confirmed", S::SERVICE_UNAVAILABLE, "the job is not confirmed yet"),
            Self::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, "the queue did not answer"),
            Self::Busy => ("busy", S::SERVICE_UNAVAILABLE, "the gateway holds too many bytes"),
            Self::StorageFull => ("storage-full", S::INSUFFICIENT_STORAGE, "no room is left"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "the gateway failed"),
        }
    }
}
