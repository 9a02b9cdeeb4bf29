//! Opens backends.

use std::sync::Arc;

use queue::{Backend, Broker, Clock, Error, ErrorKind, Result};
use queue_embedded::StoreOptions;
#[cfg(feature = "kafka")]
use queue_kafka::KafkaBroker;
#[cfg(feature = "rabbitmq")]
use queue_rabbitmq::RabbitMqBroker;

use crate::url::BackendUrl;
use crate::urls::BackendUrls;

/// Opens broker, ledger and roster. Must be called within a tokio runtime, where their background tasks live.
///
/// It does not wait for a server. If a server is unreachable, the calls fail with [`ErrorKind::Unavailable`].
pub async fn open(urls: &BackendUrls) -> Result<Backend> {
    open_with_clock(urls, Clock::default()).await
}

/// Like [`open`]. A backend without its own clock uses `clock` for leases, deadlines and retries.
pub async fn open_with_clock(urls: &BackendUrls, clock: Clock) -> Result<Backend> {
    let backend = open_ledger(urls.ledger(), urls, clock.clone())?;
    if urls.broker() == urls.ledger() {
        return Ok(backend);
    }
    Ok(Backend { broker: open_broker(urls, clock)?, ..backend })
}

/// All three roles at `url`, which is one of `urls`.
pub(crate) fn open_ledger(url: &BackendUrl, urls: &BackendUrls, clock: Clock) -> Result<Backend> {
    let dead_retention = urls.dead_retention();
    match url {
        BackendUrl::Embedded { folder, max_size_bytes } => {
            let options = StoreOptions { folder: folder.clone(), max_size_bytes: *max_size_bytes, dead_retention };
            queue_embedded::open(&options, clock)
        }
        #[cfg(feature = "redis")]
        BackendUrl::Redis(url) => queue_redis::open(url, clock, dead_retention),
        #[allow(unreachable_patterns, reason = "reachable with a backend that is a broker alone")]
        url => Err(Error::new(ErrorKind::Refused, format_args!("ledger: {url} has no ledger"))),
    }
}

/// The broker alone.
pub(crate) fn open_broker(urls: &BackendUrls, clock: Clock) -> Result<Arc<dyn Broker>> {
    Ok(match urls.broker() {
        #[cfg(feature = "kafka")]
        BackendUrl::Kafka(url) => Arc::new(KafkaBroker::open(url, urls.routes())),
        #[cfg(feature = "rabbitmq")]
        BackendUrl::RabbitMq(url) => Arc::new(RabbitMqBroker::open(url, urls.routes())?),
        url => open_ledger(url, urls, clock)?.broker,
    })
}
