//! Why a job failed: the list of all kinds of errors that a job's record can hold.

use serde::{Deserialize, Serialize};

/// Why a job, or one attempt at it, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The name of a [`JobErrorKind`]. A record that a newer version wrote may hold a name that is not in the list.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cause, for a reader.
    pub message: String,
}

/// The kinds of errors of jobs, on every ledger. The drivers' scripts take the names from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobErrorKind {
    /// The model rejects the input.
    BadInput,
    /// The deadline passed before the job was started.
    Expired,
    /// The input in the blob store is missing, damaged or unreachable, or the ledger cannot read it.
    InputUnreadable,
    /// The model failed, or its output could not be presented.
    ModelError,
    /// The output could not be written to the blob store, or the ledger cannot record the result.
    OutputUnwritable,
    /// The broker rejects the job permanently, so no worker could ever take it.
    Unpublishable,
    /// The message is not a job. It is recorded as dead with its bytes.
    UnreadableMessage,
    /// The worker disappeared while the job ran.
    WorkerVanished,
}

/// Whether a job is retried after an error of a kind, as long as it has attempts left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retried {
    /// It is retried.
    Yes,
    /// It ends: another attempt would fail in the same way.
    No,
    /// It is retried if the cause may be temporary; docs/states-and-errors.md lists the cases.
    Depends,
}

impl JobErrorKind {
    /// All kinds, by name.
    pub const ALL: [Self; 8] = [
        Self::BadInput,
        Self::Expired,
        Self::InputUnreadable,
        Self::ModelError,
        Self::OutputUnwritable,
        Self::Unpublishable,
        Self::UnreadableMessage,
        Self::WorkerVanished,
    ];

    /// The name in records, events and answers of the gateway.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadInput => "bad_input",
            Self::Expired => "expired",
            Self::InputUnreadable => "input_unreadable",
            Self::ModelError => "model_error",
            Self::OutputUnwritable => "output_unwritable",
            Self::Unpublishable => "unpublishable",
            Self::UnreadableMessage => "unreadable_message",
            Self::WorkerVanished => "worker_vanished",
        }
    }

    /// Whether a job is retried after it.
    pub const fn retried(self) -> Retried {
        match self {
            Self::WorkerVanished => Retried::Yes,
            // A damaged input stays damaged, but an unreachable store becomes reachable again. A failed forward pass is
            // repeated, but the presentation of an output is not. A result that the ledger cannot record is final.
            Self::InputUnreadable | Self::ModelError | Self::OutputUnwritable => Retried::Depends,
            Self::BadInput | Self::Expired | Self::Unpublishable | Self::UnreadableMessage => Retried::No,
        }
    }

    /// An error of this kind.
    pub fn error(self, message: impl Into<String>) -> JobError {
        JobError { kind: self.as_str().to_owned(), message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_are_listed_by_name_and_each_once() {
        assert!(JobErrorKind::ALL.is_sorted_by(|one, next| one.as_str() < next.as_str()));
    }
}
