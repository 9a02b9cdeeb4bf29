//! librdkafka's errors in the terms of a caller.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use queue::{Error, ErrorKind};

/// What a caller can do about this code.
pub(super) fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => ErrorKind::Refused,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
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
        | Code::UnsupportedFeature => ErrorKind::Denied,
        Code::QueueFull | Code::ThrottlingQuotaExceeded => ErrorKind::Full,
        Code::InvalidMessage | Code::BadMessage | Code::BadCompression => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

/// The error of a call that failed.
pub(super) fn failed(action: &str, error: KafkaError) -> Error {
    let kind = match &error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::AdminOpCreation(_) => {
            ErrorKind::Denied
        }
        KafkaError::AdminOp(code) => kind_of(*code),
        error => error.rdkafka_error_code().map_or(ErrorKind::Unavailable, kind_of),
    };
    Error::caused(kind, format_args!("cannot {action}"), error)
}

/// The error of a backend that does not answer, or of a consumer that cannot continue.
pub(super) fn unavailable(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, why)
}

/// Whether the error means that the topic does not exist, or that the servers do not know it yet.
pub(super) fn is_unknown_topic(code: Code) -> bool {
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable)
}

/// Whether the error means that the group has removed this consumer, or has assigned its partitions to another one.
pub(super) fn is_partition_lost(error: &KafkaError) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_that_the_servers_can_never_take_is_refused() {
        for (code, kind) in [
            (Code::MessageSizeTooLarge, ErrorKind::Refused),
            (Code::MessageBatchTooLarge, ErrorKind::Refused),
            (Code::TopicAuthorizationFailed, ErrorKind::Denied),
            (Code::GroupAuthorizationFailed, ErrorKind::Denied),
            (Code::ClusterAuthorizationFailed, ErrorKind::Denied),
            (Code::SaslAuthenticationFailed, ErrorKind::Denied),
            (Code::Authentication, ErrorKind::Denied),
            (Code::SSL, ErrorKind::Denied),
            (Code::InvalidTopic, ErrorKind::Denied),
            (Code::PolicyViolation, ErrorKind::Denied),
            (Code::ThrottlingQuotaExceeded, ErrorKind::Full),
            (Code::MessageTimedOut, ErrorKind::Unavailable),
            (Code::NotEnoughReplicas, ErrorKind::Unavailable),
            (Code::Unknown, ErrorKind::Unavailable),
        ] {
            assert_eq!(kind_of(code), kind, "{code:?}");
        }
        let creation = KafkaError::ClientCreation("no such file".to_owned());
        assert_eq!(failed("open a producer", creation).kind(), ErrorKind::Denied);
    }
}
