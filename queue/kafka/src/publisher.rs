//! Publishes records to topics.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};

use super::cluster::Cluster;
use super::context::Context;
use super::error::failed;
use queue::{Error, ErrorKind, JobId, Result};

pub(super) struct Publisher {
    cluster: Arc<Cluster>,
    /// Replaced after a fatal error.
    client: Mutex<Client>,
}

/// librdkafka's producer, and the context that collects its events.
type Client = (FutureProducer<Context>, Context);

/// A record to publish.
pub(super) struct OutgoingRecord<'a> {
    pub(super) topic: String,
    /// The record's job. Its id is the key, which spreads jobs evenly and keeps the records of one job in order.
    pub(super) job: &'a JobId,
    pub(super) headers: OwnedHeaders,
    pub(super) value: Bytes,
}

/// A record that was sent, and its future confirmation.
struct UnconfirmedRecord<'a> {
    job: &'a JobId,
    topic: String,
    bytes: usize,
    confirmed: DeliveryFuture,
}

impl Publisher {
    pub(super) fn open(cluster: Arc<Cluster>) -> Result<Self> {
        Ok(Self { client: Mutex::new(cluster.producer()?), cluster })
    }

    fn client(&self) -> Result<Client> {
        let mut client = self.client.lock();
        if let Some((_, why)) = client.0.client().fatal_error() {
            tracing::warn!(why, "the kafka producer has failed, and is replaced");
            *client = self.cluster.producer()?;
        }
        Ok(client.clone())
    }

    /// Creates those of these topics that do not exist. Otherwise a server might create them with its own defaults.
    pub(super) async fn ensure_topics(&self, topics: Vec<String>) -> Result<()> {
        self.cluster.run_blocking("publish", move |cluster| cluster.ensure_topics(topics)).await
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Publishes the records, and returns when the servers have confirmed each of them.
    pub(super) async fn publish(&self, records: impl Iterator<Item = OutgoingRecord<'_>> + Send) -> Result<()> {
        let (client, context) = self.client()?;
        let (mut sent, mut first_error) = (VecDeque::new(), None);
        'records: for OutgoingRecord { topic, job, headers, value } in records {
            let bytes = value.len();
            let mut record = FutureRecord::to(&topic).key(job.as_str()).payload(value.as_ref()).headers(headers);
            loop {
                let error = match client.send_result(record) {
                    Ok(confirmed) => {
                        sent.push_back(UnconfirmedRecord { job, topic, bytes, confirmed });
                        continue 'records;
                    }
                    Err((KafkaError::MessageProduction(Code::QueueFull), rejected)) if !sent.is_empty() => {
                        record = rejected;
                        let Some(oldest) = sent.pop_front() else { continue };
                        match self.confirmed(&context, oldest).await {
                            Ok(()) => continue,
                            Err(error) => error,
                        }
                    }
                    Err((error, _)) => self.publish_error(&context, job, &topic, bytes, error),
                };
                first_error = Some(error);
                break 'records;
            }
        }
        // This waits for all sent records, even after an error, because the caller may publish again as soon as this
        // returns.
        for sent in sent {
            let confirmed = self.confirmed(&context, sent).await;
            first_error = first_error.or(confirmed.err());
        }
        first_error.map_or(Ok(()), Err)
    }

    async fn confirmed(&self, context: &Context, sent: UnconfirmedRecord<'_>) -> Result<()> {
        match sent.confirmed.await {
            // librdkafka concludes from the confirmation of a later record that this one is in the log too. That is wrong
            // if the server rejected this one first: in a new partition, a server accepts any record as the first.
            Ok(Ok(delivery)) if delivery.offset < 0 => {
                let why = format!("cannot publish the job {} to the topic {}", sent.job, sent.topic);
                let why = format!("{why}: the servers confirmed it without an offset, so it may not be in the log");
                Err(Error::new(ErrorKind::Unavailable, why))
            }
            Ok(Ok(_)) => {
                context.clear_error();
                Ok(())
            }
            Ok(Err((error, _))) => Err(self.publish_error(context, sent.job, &sent.topic, sent.bytes, error)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "cannot publish: the kafka producer has ended")),
        }
    }

    fn publish_error(&self, context: &Context, job: &JobId, topic: &str, bytes: usize, error: KafkaError) -> Error {
        let action = format!("publish the job {job} to the topic {topic}");
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => {
                let way_out = "raise max.message.bytes of the topic and message.max.bytes in the URL, or lower \
                               blobs.inline_limit";
                Error::caused(ErrorKind::Refused, format_args!("cannot {action}: {bytes} bytes: {way_out}"), error)
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                self.cluster.forget_topic(topic);
                failed(&action, error)
            }
            _ => {
                let error = failed(&action, error);
                let unavailable = error.kind() == ErrorKind::Unavailable;
                unavailable.then(|| context.reason_of_timeout(&action)).flatten().unwrap_or(error)
            }
        }
    }
}
