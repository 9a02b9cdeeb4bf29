//! What librdkafka tells a client beside the answers to its calls.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use super::error::kind_of;
use queue::{Error, ErrorKind};

/// Collects it until the thread that polls the client asks. A clone is of the same client.
#[derive(Clone, Default)]
pub(super) struct Context(Arc<Heard>);

#[derive(Default)]
struct Heard {
    trouble: Mutex<Option<Trouble>>,
    /// What was refused, and has been warned of.
    warned: Mutex<Vec<Code>>,
    rebalances: Mutex<VecDeque<Rebalance>>,
    told: AtomicU64,
    is_leaving: AtomicBool,
}

/// What the group does with this consumer's partitions. It waits for the answer: an assign, or an unassign.
pub(super) enum Rebalance {
    /// These are ours now.
    Assign(TopicPartitionList),
    /// These are to be given up.
    Revoke(TopicPartitionList),
    /// These are ours no more.
    Lost(TopicPartitionList),
}

/// Why the servers cannot be reached, or what they refuse, as far as known.
#[derive(Clone)]
struct Trouble {
    code: Code,
    reason: String,
}

impl Context {
    /// Grows with everything that is told, so that whoever polls knows whether to poll again.
    pub(super) fn told(&self) -> u64 {
        self.0.told.load(Ordering::Relaxed)
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        lock(&self.0.rebalances).pop_front()
    }

    /// From here on what the group takes is given up at once.
    pub(super) fn leave(&self) {
        self.0.is_leaving.store(true, Ordering::Relaxed);
    }

    /// What was wanted has been done.
    pub(super) fn is_well(&self) {
        *lock(&self.0.trouble) = None;
    }

    /// A server has answered a question. What another refused, such as the group's coordinator, it goes on refusing.
    pub(super) fn is_reached(&self) {
        lock(&self.0.trouble).take_if(|trouble| is_of_the_connection(trouble.code));
    }

    /// Why calls fail or are not answered, if a reason was told since all was well.
    pub(super) fn trouble(&self, action: &str) -> Option<Error> {
        let trouble = lock(&self.0.trouble).clone()?;
        Some(Error::new(kind_of(trouble.code), format_args!("cannot {action}: {}", trouble.reason)))
    }

    fn tell(&self) {
        self.0.told.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.tell();
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(facility, message, "kafka client");
            }
            // A server that cannot be reached is logged several times a second; the calls say so.
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.tell();
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        let kind = kind_of(code);
        tracing::debug!(?code, reason, "kafka client has trouble");
        if kind == ErrorKind::Refused {
            let mut warned = lock(&self.0.warned);
            if !warned.contains(&code) {
                warned.push(code);
                tracing::warn!(?code, reason, "kafka refuses this client something");
            }
        }
        if kind == ErrorKind::Refused || is_of_the_connection(code) {
            let mut trouble = lock(&self.0.trouble);
            // "All are down" follows the reason why, and would hide it.
            if code != Code::AllBrokersDown || trouble.is_none() {
                *trouble = Some(Trouble { code, reason: reason.to_owned() });
            }
        }
    }
}

/// It keeps this client from any server; so one that answers shows that it is over.
fn is_of_the_connection(code: Code) -> bool {
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
        self.tell();
        let is_assign = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.0.is_leaving.load(Ordering::Relaxed) {
            if let Err(error) = answer(consumer, is_assign, partitions) {
                tracing::warn!(%error, "cannot leave the group: it will take this consumer for dead");
            }
            return;
        }
        let partitions = partitions.clone();
        lock(&self.0.rebalances).push_back(match what {
            _ if is_assign => Rebalance::Assign(partitions),
            _ if consumer.assignment_lost() => Rebalance::Lost(partitions),
            _ => Rebalance::Revoke(partitions),
        });
    }
}

/// Tells the group that its assignment or revocation has been followed.
pub(super) fn answer(
    consumer: &BaseConsumer<Context>,
    assign: bool,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    match (consumer.rebalance_protocol(), assign) {
        (RebalanceProtocol::Cooperative, true) => consumer.incremental_assign(partitions),
        (RebalanceProtocol::Cooperative, false) => consumer.incremental_unassign(partitions),
        (_, true) => consumer.assign(partitions),
        (_, false) => consumer.unassign(),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under it is a single call, so a panic cannot leave it half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: Code) -> Context {
        let context = Context::default();
        context.error(KafkaError::Global(code), "the reason");
        context
    }

    #[test]
    fn what_is_refused_stays_so_whoever_else_answers() {
        let context = told(Code::GroupAuthorizationFailed);
        context.is_reached();
        let error = context.trouble("receive").unwrap();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Refused, "cannot receive: the reason"));
        context.is_well();
        assert!(context.trouble("receive").is_none());
    }

    #[test]
    fn an_answer_shows_that_the_servers_are_in_reach() {
        for code in [Code::BrokerTransportFailure, Code::AllBrokersDown, Code::SaslAuthenticationFailed] {
            let context = told(code);
            assert!(context.trouble("receive").is_some());
            context.is_reached();
            assert!(context.trouble("receive").is_none());
        }
    }
}
