//! librdkafka's errors in the terms of a caller.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use queue::{Error, ErrorKind};

/// What a caller can do about it.
pub(super) fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::InvalidArgument
        | Code::InvalidRequest
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::InvalidTimestamp
        | Code::PolicyViolation
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature => ErrorKind::Refused,
        Code::QueueFull | Code::ThrottlingQuotaExceeded => ErrorKind::Full,
        Code::InvalidMessage | Code::BadMessage | Code::BadCompression => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

/// What a call failed with.
pub(super) fn failed(action: &str, error: KafkaError) -> Error {
    let kind = match &error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::AdminOpCreation(_) => {
            ErrorKind::Refused
        }
        KafkaError::AdminOp(code) => kind_of(*code),
        error => error.rdkafka_error_code().map_or(ErrorKind::Unavailable, kind_of),
    };
    Error::caused(kind, format_args!("cannot {action}"), error)
}

/// The group has taken this consumer for dead, or has given its partitions to another.
pub(super) fn is_no_longer_ours(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::FencedInstanceId
                | Code::Fenced
                | Code::AssignmentLost
                | Code::FencedMemberEpoch
                | Code::StaleMemberEpoch
        )
    )
}
