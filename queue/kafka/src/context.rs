//! The events that librdkafka reports to a client, apart from the results of its calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use super::error::kind_of;
use queue::{Error, ErrorKind};

/// Collects the events for the thread that polls the client. A clone belongs to the same client.
#[derive(Clone, Default)]
pub(super) struct Context(Arc<Events>);

#[derive(Default)]
struct Events {
    /// Why the servers cannot be reached, or what they refuse. `None`: no such error since the last success.
    error: Mutex<Option<ReportedError>>,
    /// The refusals that have been logged as a warning.
    warned: Mutex<Vec<Code>>,
    rebalances: Mutex<VecDeque<Rebalance>>,
    count: AtomicU64,
    is_leaving: AtomicBool,
    is_abandoned: AtomicBool,
}

/// A change of this consumer's partitions. The group waits until the consumer acknowledges it.
pub(super) enum Rebalance {
    /// These are assigned to this consumer.
    Assign(TopicPartitionList),
    /// The consumer must give these up.
    Revoke(TopicPartitionList),
    /// These are no longer assigned to this consumer.
    Lost(TopicPartitionList),
}

#[derive(Clone)]
struct ReportedError {
    code: Code,
    reason: String,
}

impl Context {
    /// Grows with every event, so that the polling thread knows whether to poll again.
    pub(super) fn event_count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.0.rebalances.lock().pop_front()
    }

    /// From now on this client acknowledges rebalances at once.
    pub(super) fn start_leaving(&self) {
        self.0.is_leaving.store(true, Ordering::Relaxed);
    }

    /// The client must not be used again: one of its requests has no answer.
    pub(super) fn abandon(&self) {
        self.0.is_abandoned.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.0.is_abandoned.load(Ordering::Relaxed)
    }

    /// A call has succeeded.
    pub(super) fn clear_error(&self) {
        *self.0.error.lock() = None;
    }

    /// A server has replied. A refusal stays valid: another server, such as the group's coordinator, still refuses.
    pub(super) fn clear_connection_error(&self) {
        self.0.error.lock().take_if(|error| is_connection_error(error.code));
    }

    /// Why calls fail or get no reply, if librdkafka has reported a reason since the last success.
    pub(super) fn reported_error(&self, action: &str) -> Option<Error> {
        let error = self.0.error.lock().clone()?;
        Some(Error::new(kind_of(error.code), format_args!("cannot {action}: {}", error.reason)))
    }

    /// The same reason for a call that got no reply in time. It does not change the kind: the call may have been sent
    /// before the reason came up.
    pub(super) fn reason_of_timeout(&self, action: &str) -> Option<Error> {
        let error = self.0.error.lock().clone()?;
        Some(Error::new(ErrorKind::Unavailable, format_args!("cannot {action}: {}", error.reason)))
    }

    fn count_event(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.count_event();
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(facility, message, "kafka client");
            }
            // librdkafka logs an unreachable server several times a second; the calls report it too.
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.count_event();
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        let kind = kind_of(code);
        tracing::debug!(?code, reason, "the kafka client reports an error");
        if kind == ErrorKind::Denied {
            let mut warned = self.0.warned.lock();
            if !warned.contains(&code) {
                warned.push(code);
                tracing::warn!(?code, reason, "kafka refuses a request of this client");
            }
        }
        if kind == ErrorKind::Denied || is_connection_error(code) {
            let mut last = self.0.error.lock();
            // "All brokers are down" follows the error with the reason, and must not replace it.
            if code != Code::AllBrokersDown || last.is_none() {
                *last = Some(ReportedError { code, reason: reason.to_owned() });
            }
        }
    }
}

/// Whether the error means that the client cannot reach any server. Such an error ends when a server replies.
fn is_connection_error(code: Code) -> bool {
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
    )
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        self.count_event();
        let is_assign = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.0.is_leaving.load(Ordering::Relaxed) {
            if let Err(error) = acknowledge_rebalance(consumer, is_assign, partitions) {
                tracing::warn!(%error, "cannot leave the group: it removes this consumer when its session expires");
            }
            return;
        }
        let partitions = partitions.clone();
        self.0.rebalances.lock().push_back(match what {
            _ if is_assign => Rebalance::Assign(partitions),
            _ if consumer.assignment_lost() => Rebalance::Lost(partitions),
            _ => Rebalance::Revoke(partitions),
        });
    }
}

/// Reports to the group that this consumer has followed an assignment, or else a revocation.
pub(super) fn acknowledge_rebalance(
    consumer: &BaseConsumer<Context>,
    is_assign: bool,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    match (consumer.rebalance_protocol(), is_assign) {
        (RebalanceProtocol::Cooperative, true) => consumer.incremental_assign(partitions),
        (RebalanceProtocol::Cooperative, false) => consumer.incremental_unassign(partitions),
        (_, true) => consumer.assign(partitions),
        (_, false) => consumer.unassign(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_error(code: Code) -> Context {
        let context = Context::default();
        context.error(KafkaError::Global(code), "the reason");
        context
    }

    #[test]
    fn a_refusal_stays_when_another_server_replies() {
        let context = after_error(Code::GroupAuthorizationFailed);
        context.clear_connection_error();
        let error = context.reported_error("receive").unwrap();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Denied, "cannot receive: the reason"));
        context.clear_error();
        assert!(context.reported_error("receive").is_none());
    }

    #[test]
    fn a_call_without_a_reply_is_unavailable_whatever_the_client_has_reported() {
        let error = after_error(Code::SaslAuthenticationFailed).reason_of_timeout("publish").unwrap();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Unavailable, "cannot publish: the reason"));
    }

    #[test]
    fn an_answer_shows_that_the_servers_are_in_reach() {
        for code in [Code::BrokerTransportFailure, Code::AllBrokersDown, Code::SaslAuthenticationFailed] {
            let context = after_error(code);
            assert!(context.reported_error("receive").is_some());
            context.clear_connection_error();
            assert!(context.reported_error("receive").is_none());
        }
    }
}
