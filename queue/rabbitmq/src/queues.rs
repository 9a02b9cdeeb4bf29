//! The queues of a pool, and other queues that routes name.

use futures::future::try_join_all;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::error::{REPLY_TIMEOUT, await_reply, failed, timed_out};
use queue::{Class, Error, ErrorKind, PoolName, Result, Routes};

/// The number of times that a message may be requeued. The ledger counts attempts, so the server must not drop a
/// message for this reason. A limit is still necessary. It must be the same for every version of the server, because
/// all clients that declare a queue must agree:
/// - Since 4.0, a queue without a limit drops a message that was requeued 20 times.
/// - Before 4.0, the limit may not be negative: `-1`, which means unlimited since 4.0, is refused.
/// - Since 3.10, a queue without a limit moves a requeued message to its end, and a queue with one puts it back.
const DELIVERY_LIMIT: i32 = i32::MAX;

/// Queues that are declared together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The queues of a pool, by class.
    Pool(PoolName),
    /// A queue whose name comes from a route.
    Named(ShortString),
}

/// The name of the queue of a pool and class. It is never too long, since the URL limits the prefix.
pub(super) fn name(prefix: &str, pool: &PoolName, class: Class) -> Result<ShortString> {
    short(&format!("{prefix}.{pool}.{class}"))
}

/// The names of the queues of a pool, in the order of the classes.
pub(super) fn pool_queues(prefix: &str, pool: &PoolName) -> Result<[ShortString; 3]> {
    let of = |class| name(prefix, pool, class);
    Ok([of(Class::Premium)?, of(Class::Standard)?, of(Class::Batch)?])
}

/// A queue whose messages are jobs of a pool.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) queue: ShortString,
    pub(super) class: Class,
    /// Its name comes from a route, and it may belong to another program.
    pub(super) is_named: bool,
}

/// The queues whose messages are jobs of `pool`, in the order of the classes.
pub(super) fn sources(prefix: &str, pool: &PoolName, routes: &Routes) -> Result<Vec<Source>> {
    let own = Class::ALL.into_iter().zip(pool_queues(prefix, pool)?);
    let own = own.map(|(class, queue)| Ok(Source { queue, class, is_named: false }));
    let source = |name: &String| Ok(Source { queue: short(name)?, class: Class::default(), is_named: true });
    let mut sources = own.chain(routes.jobs_from(pool).iter().map(source)).collect::<Result<Vec<_>>>()?;
    sources.sort_by_key(|source| source.class);
    Ok(sources)
}

/// A text of at most 255 bytes, the limit of AMQP.
pub(super) fn short(text: &str) -> Result<ShortString> {
    let refused = |error| Error::new(ErrorKind::Refused, format_args!("{text:?} is too long: {error}"));
    ShortString::try_new(text).map_err(refused)
}

/// Declares the queues of `pool`.
pub(super) async fn declare_pool(channel: &Channel, prefix: &str, pool: &PoolName) -> Result<()> {
    let doing = format!(
        "declare the queues {prefix}.{pool}.* as durable quorum queues with x-delivery-limit={DELIVERY_LIMIT} (delete \
         a queue that exists with other arguments, or set another prefix)"
    );
    declare_all(channel, &pool_queues(prefix, pool)?, doing).await
}

/// Declares a queue whose name comes from a route and which does not exist yet.
pub(super) async fn declare_named(channel: &Channel, name: &ShortString) -> Result<()> {
    declare_all(channel, std::slice::from_ref(name), format!("declare the queue {name} as a durable quorum queue"))
        .await
}

async fn declare_all(channel: &Channel, names: &[ShortString], doing: String) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = names.iter().map(|name| channel.queue_declare(name.clone(), options, arguments.clone()));
    await_reply(doing, try_join_all(declared)).await.map(drop)
}

/// The number of messages that wait in a queue. `None`: there is no such queue, and the server has closed the channel.
pub(super) async fn message_count(channel: &Channel, name: ShortString) -> Result<Option<u64>> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let doing = format!("count the messages in {name}");
    let request = channel.queue_declare(name, options, FieldTable::default());
    let Ok(reply) = tokio::time::timeout(REPLY_TIMEOUT, request).await else {
        return Err(timed_out(doing));
    };
    match reply {
        Ok(queue) => Ok(Some(queue.message_count().into())),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(failed(doing, error)),
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
    let lapin::ErrorKind::ProtocolError(reason) = error.kind() else { return false };
    matches!(reason.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}
