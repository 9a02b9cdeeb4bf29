//! The queues of a pool.

use futures::future::try_join_all;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::error::{ANSWER_TIMEOUT, answer, failed, unanswered};
use queue::{Class, Error, ErrorKind, PoolName, Result, Routes};

/// How many times a message may be given back. Attempts are counted in the ledger, so this means never to drop one; but
/// it must be set, and alike on every version of the server, since those who declare a queue must agree:
/// - from 4.0 on a queue without it drops a message that came back 20 times;
/// - before 4.0 it may not be negative, so `-1`, which 4.0 takes for unlimited, is refused;
/// - from 3.10 on a queue without it puts what is given back behind all others, one with it where it was.
const DELIVERY_LIMIT: i32 = i32::MAX;

/// What is made sure to be there together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The queues of a pool, by class.
    Pool(PoolName),
    /// A queue of a name of its own.
    Named(ShortString),
}

/// The name of the queue of a pool and class. A URL's prefix is short enough that it never is too long.
pub(super) fn name(prefix: &str, pool: &PoolName, class: Class) -> Result<ShortString> {
    short(&format!("{prefix}.{pool}.{class}"))
}

/// The names of the queues of a pool, in the order of the classes.
pub(super) fn of(prefix: &str, pool: &PoolName) -> Result<[ShortString; 3]> {
    let of = |class| name(prefix, pool, class);
    Ok([of(Class::Premium)?, of(Class::Standard)?, of(Class::Batch)?])
}

/// A queue whose messages are jobs of a pool.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) queue: ShortString,
    pub(super) class: Class,
    /// Its name is its own; it may be another's.
    pub(super) is_named: bool,
}

/// The queues whose messages are jobs of `pool`, in the order of the classes.
pub(super) fn sources(prefix: &str, pool: &PoolName, routes: &Routes) -> Result<Vec<Source>> {
    let own = Class::ALL.into_iter().zip(of(prefix, pool)?);
    let own = own.map(|(class, queue)| Ok(Source { queue, class, is_named: false }));
    let source = |name: &String| Ok(Source { queue: short(name)?, class: Class::default(), is_named: true });
    let mut sources = own.chain(routes.jobs_from(pool).iter().map(source)).collect::<Result<Vec<_>>>()?;
    sources.sort_by_key(|source| source.class);
    Ok(sources)
}

/// Text of which AMQP allows 255 bytes.
pub(super) fn short(text: &str) -> Result<ShortString> {
    let refused = |error| Error::new(ErrorKind::Refused, format_args!("{text:?} is too long: {error}"));
    ShortString::try_new(text).map_err(refused)
}

/// Makes sure that the queues of `pool` are there.
pub(super) async fn declare(channel: &Channel, prefix: &str, pool: &PoolName) -> Result<()> {
    let doing = format!(
        "declare the queues {prefix}.{pool}.* as durable quorum queues with x-delivery-limit={DELIVERY_LIMIT} (delete \
         a queue that is there with other arguments, or set another prefix)"
    );
    declare_all(channel, &of(prefix, pool)?, doing).await
}

/// Makes a queue of a name of its own, which is not there.
pub(super) async fn make(channel: &Channel, name: &ShortString) -> Result<()> {
    declare_all(channel, std::slice::from_ref(name), format!("declare the queue {name} as a durable quorum queue"))
        .await
}

async fn declare_all(channel: &Channel, names: &[ShortString], doing: String) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = names.iter().map(|name| channel.queue_declare(name.clone(), options, arguments.clone()));
    answer(doing, try_join_all(declared)).await.map(drop)
}

/// How many messages wait in a queue. `None`: there is no such queue, and the channel is closed.
pub(super) async fn waiting(channel: &Channel, name: ShortString) -> Result<Option<u64>> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let doing = format!("ask how much waits in {name}");
    let asked = channel.queue_declare(name, options, FieldTable::default());
    let Ok(counted) = tokio::time::timeout(ANSWER_TIMEOUT, asked).await else {
        return Err(unanswered(doing));
    };
    match counted {
        Ok(queue) => Ok(Some(queue.message_count().into())),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(failed(doing, error)),
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
    let lapin::ErrorKind::ProtocolError(said) = error.kind() else { return false };
    matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}
