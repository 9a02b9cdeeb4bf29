//! Publishes jobs to topics.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};

use super::cluster::Cluster;
use super::context::{Context, lock};
use super::error::failed;
use super::record;
use crate::broker::Producer;
use crate::{Error, ErrorKind, Job, PoolName, Result};

pub(super) struct KafkaProducer {
    cluster: Arc<Cluster>,
    /// Replaced when it can go on no more.
    client: Mutex<Client>,
}

/// librdkafka's producer, and what it is told.
type Client = (FutureProducer<Context>, Context);

/// A record on its way: which job, its topic, and the confirmation to come.
struct Sent<'a> {
    job: &'a Job,
    topic: String,
    confirmed: DeliveryFuture,
}

impl KafkaProducer {
    pub(super) fn open(cluster: Arc<Cluster>) -> Result<Self> {
        Ok(Self { client: Mutex::new(cluster.producer()?), cluster })
    }

    fn client(&self) -> Result<Client> {
        let mut client = lock(&self.client);
        if let Some((_, why)) = client.0.client().fatal_error() {
            tracing::warn!(why, "the kafka producer can go on no more, and is replaced");
            *client = self.cluster.producer()?;
        }
        Ok(client.clone())
    }

    /// librdkafka would let a server create the topic as it pleases.
    async fn ensure_topics(&self, jobs: &[Job]) -> Result<()> {
        let is_unknown = |job: &&Job| !self.cluster.is_known(&self.cluster.url.topic(&job.pool, job.class));
        let pools: BTreeSet<&PoolName> = jobs.iter().filter(is_unknown).map(|job| &job.pool).collect();
        for pool in pools {
            let pool = pool.clone();
            self.cluster.ask("publish", move |cluster| cluster.ensure_topics(&pool)).await?;
        }
        Ok(())
    }

    async fn confirmed(&self, context: &Context, sent: Sent<'_>) -> Result<()> {
        match sent.confirmed.await {
            Ok(Ok(_)) => {
                context.is_well();
                Ok(())
            }
            Ok(Err((error, _))) => Err(self.refused(context, sent.job, &sent.topic, error)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "cannot publish: the kafka producer has ended")),
        }
    }

    fn refused(&self, context: &Context, job: &Job, topic: &str, error: KafkaError) -> Error {
        let action = format!("publish the job {} to the topic {topic}", job.id);
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => {
                let way_out = "raise message.max.bytes of the topic and in the URL, or lower the limit above which an \
                               input goes to the blob store";
                let size = record::write(job).1.len();
                Error::caused(ErrorKind::Refused, format_args!("cannot {action}: {size} bytes: {way_out}"), error)
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                self.cluster.forget(topic);
                failed(&action, error)
            }
            _ => {
                let error = failed(&action, error);
                let unavailable = error.kind() == ErrorKind::Unavailable;
                unavailable.then(|| context.trouble(&action)).flatten().unwrap_or(error)
            }
        }
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        self.ensure_topics(jobs).await?;
        let (client, context) = self.client()?;
        let (mut sent, mut first_error) = (VecDeque::with_capacity(jobs.len()), None);
        'jobs: for job in jobs {
            let topic = self.cluster.url.topic(&job.pool, job.class);
            let (headers, value) = record::write(job);
            let mut record = FutureRecord::to(&topic).key(job.id.as_str()).payload(value.as_ref()).headers(headers);
            loop {
                let error = match client.send_result(record) {
                    Ok(confirmed) => {
                        sent.push_back(Sent { job, topic: topic.clone(), confirmed });
                        continue 'jobs;
                    }
                    Err((KafkaError::MessageProduction(Code::QueueFull), rejected)) if !sent.is_empty() => {
                        record = rejected;
                        let Some(oldest) = sent.pop_front() else { continue };
                        match self.confirmed(&context, oldest).await {
                            Ok(()) => continue,
                            Err(error) => error,
                        }
                    }
                    Err((error, _)) => self.refused(&context, job, &topic, error),
                };
                first_error = Some(error);
                break 'jobs;
            }
        }
        // What is on its way is waited for even so: a caller may publish again as soon as it has its answer.
        for sent in sent {
            let confirmed = self.confirmed(&context, sent).await;
            first_error = first_error.or(confirmed.err());
        }
        first_error.map_or(Ok(()), Err)
    }
}
