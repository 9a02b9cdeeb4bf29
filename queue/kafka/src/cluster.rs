//! The Kafka cluster, shared by all roles: how clients are configured, and which topics exist.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::FutureProducer;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::blocking::BlockingCalls;
use super::context::Context;
use super::error::{failed, is_unknown_topic, kind_of};
use super::url::KafkaUrl;
use queue::{Class, Error, ErrorKind, PoolName, Result, Routes};

/// A call without a reply has failed after this time.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time until all servers know a new topic, and the interval of the checks. The servers send no event for
/// it.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(5);
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_millis(20);

pub(super) const ALL_CLIENTS: [(&str, &str); 4] = [
    ("client.id", "millrace"),
    ("socket.timeout.ms", "10000"),
    ("reconnect.backoff.max.ms", "2000"),
    // The client detects added partitions within this time.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

const PRODUCERS: [(&str, &str); 6] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "10000"),
    // This is shorter than the message timeout, so that the error names a deleted topic as the reason. The topic is
    // then created again.
    ("topic.metadata.propagation.max.ms", "5000"),
    ("linger.ms", "1"),
    // Like the producers in Java: a key goes to the same partition, independent of the program that publishes it.
    ("partitioner", "murmur2_random"),
];

const CONSUMERS: [(&str, &str); 10] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("auto.offset.reset", "earliest"),
    ("isolation.level", "read_committed"),
    ("fetch.wait.max.ms", "100"),
    // The limits of fetching ahead, per partition. Fetched jobs count as waiting, and a more urgent class is still
    // taken first.
    ("queued.min.messages", "256"),
    ("queued.max.messages.kbytes", "2048"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.max.bytes", "16777216"),
];

/// The rules by which the members of a group share its partitions, unless the URL sets `group.protocol=consumer`. With
/// that protocol the servers decide these rules.
///
/// That protocol has an advantage: when a member is killed, no other member waits for its session to expire. But it is
/// not the default, even if the servers support it (Kafka 4.0 and later). By default they set
/// `group.consumer.session.timeout.ms` to 45 s and no group can choose less. So the jobs of a killed worker would be
/// delivered again only after 45 s, rather than within 8 s.
const CLASSIC_GROUP: [(&str, &str); 3] = [
    // Each topic is shared evenly. `cooperative-sticky` shares the partitions of all classes evenly: a worker that joins
    // gets those of one or two classes, and runs nothing while these have no jobs. The price of `roundrobin`: all members
    // give their partitions up at each rebalance.
    ("partition.assignment.strategy", "roundrobin"),
    // The jobs of a killed worker are delivered again within 10 s.
    ("session.timeout.ms", "6000"),
    // Within this time a member detects a rebalance, for which the others wait.
    ("heartbeat.interval.ms", "1000"),
];

/// The rule if the URL sets `group.protocol=consumer`. Each topic is shared evenly. By default the servers share the
/// partitions of all classes evenly, so a worker might get none of the class that has jobs.
const CONSUMER_GROUP: [(&str, &str); 1] = [("group.remote.assignor", "range")];

/// A topic whose records are jobs of a pool.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) topic: Arc<str>,
    pub(super) class: Class,
    /// Its name comes from a route, and it may belong to another program.
    pub(super) is_named: bool,
}

pub(super) struct Cluster {
    pub(super) url: KafkaUrl,
    pub(super) routes: Routes,
    /// Reads about topics and offsets. It is not a member of any group.
    client: Mutex<Option<Arc<BaseConsumer<Context>>>>,
    existing_topics: Mutex<HashSet<String>>,
    blocking_calls: BlockingCalls,
}

impl Cluster {
    pub(super) fn new(url: &KafkaUrl, routes: &Routes) -> Self {
        Self {
            url: url.clone(),
            routes: routes.clone(),
            client: Mutex::default(),
            existing_topics: Mutex::default(),
            blocking_calls: BlockingCalls::default(),
        }
    }

    /// The topics whose records are jobs of `pool`, with their classes.
    pub(super) fn topics(&self, pool: &PoolName) -> Vec<(String, Class)> {
        self.sources(pool).into_iter().map(|source| (source.topic.to_string(), source.class)).collect()
    }

    /// The topics whose records are jobs of `pool`.
    pub(super) fn sources(&self, pool: &PoolName) -> Vec<Source> {
        let own = Class::ALL.into_iter().map(|class| Source {
            topic: self.url.topic(pool, class).into(),
            class,
            is_named: false,
        });
        let named = self.routes.jobs_from(pool).iter();
        let named = named.map(|topic| Source { topic: topic.as_str().into(), class: Class::default(), is_named: true });
        own.chain(named).collect()
    }

    /// A client that publishes, with the context that collects its events.
    pub(super) fn producer(&self) -> Result<(FutureProducer<Context>, Context)> {
        let context = Context::default();
        Ok((self.create("open a producer", &PRODUCERS, context.clone())?, context))
    }

    /// A client that joins a pool's group when it subscribes. Before that it can only read the group's committed
    /// offsets.
    pub(super) fn consumer(&self, pool: &PoolName) -> Result<BaseConsumer<Context>> {
        let group = self.url.group(pool);
        let mut defaults = CONSUMERS.to_vec();
        if self.url.property("group.protocol").is_none_or(|protocol| protocol == "classic") {
            defaults.extend(CLASSIC_GROUP);
        } else {
            defaults.extend(CONSUMER_GROUP);
        }
        defaults.push(("group.id", &group));
        self.create("open a consumer", &defaults, Context::default())
    }

    fn create<C>(&self, action: &str, defaults: &[(&str, &str)], context: Context) -> Result<C>
    where
        C: FromClientConfigAndContext<Context>,
    {
        let mut config = self.url.renewed()?.config(&[&ALL_CLIENTS, defaults].concat());
        // The context receives warnings and errors, and decides how to log them.
        config.set_log_level(RDKafkaLogLevel::Warning);
        config.create_with_context(context).map_err(|error| failed(action, error))
    }

    /// The client that reads about topics and offsets. Its callers poll it, so that its context collects its events.
    pub(super) fn client(&self) -> Result<Arc<BaseConsumer<Context>>> {
        let mut client = self.client.lock();
        if client.is_none() {
            // Without a group of its own, librdkafka ends the process when a server is not the coordinator of a group any
            // more: `rd_kafka_handle_OffsetFetch` uses the client's own group. This client never joins it.
            let group = format!("{}._", self.url.prefix());
            *client = Some(Arc::new(self.create("open a client", &[("group.id", &group)], Context::default())?));
        }
        client.clone().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the kafka client is gone"))
    }

    /// The number of partitions of a topic; 0: there is no such topic.
    pub(super) fn partition_count(&self, topic: &str) -> Result<i32> {
        let action = format!("look up the topic {topic}");
        let client = self.client()?;
        let metadata =
            client.fetch_metadata(Some(topic), CALL_TIMEOUT).map_err(|error| call_error(&client, &action, error))?;
        client.context().clear_error();
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(0) };
        match found.error().map(Code::from) {
            None => Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)),
            Some(code) if is_unknown_topic(code) => Ok(0),
            Some(code) => Err(failed(&action, KafkaError::MetadataFetch(code))),
        }
    }

    /// Creates those of `topics` that do not exist, and waits until their servers accept records. Blocks.
    pub(super) fn ensure_topics(&self, topics: Vec<String>) -> Result<()> {
        let unknown: Vec<_> = topics.into_iter().filter(|topic| !self.is_known_topic(topic)).collect();
        let mut missing = Vec::new();
        for topic in &unknown {
            if self.partition_count(topic)? == 0 {
                missing.push(topic.clone());
            }
        }
        if !missing.is_empty() {
            self.create_topics(&missing)?;
        }
        self.await_logs(&unknown)?;
        self.existing_topics.lock().extend(unknown);
        Ok(())
    }

    /// Waits until the server of each partition has its log. A server shows a new topic a little earlier than it accepts
    /// records. A batch that comes too early is rejected, and the next batch of the same producer may be accepted. Then
    /// librdkafka reports both as delivered.
    fn await_logs(&self, topics: &[String]) -> Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        let client = self.client()?;
        let deadline = Instant::now() + TOPIC_TIMEOUT;
        let mut partitions = TopicPartitionList::new();
        for topic in topics {
            partitions.add_partition_range(topic, 0, self.partition_count(topic)? - 1);
        }
        let action = "read the ends of new logs";
        partitions.set_all_offsets(Offset::End).map_err(|error| failed(action, error))?;
        loop {
            let ends = client.offsets_for_times(partitions.clone(), CALL_TIMEOUT);
            let error = ends.and_then(|ends| ends.elements().iter().try_for_each(|end| end.error())).err();
            let Some(error) = error else { return Ok(()) };
            if Instant::now() > deadline {
                // A partition may have no server for long. Those with a server must not wait for it.
                tracing::warn!(%error, ?topics, "not every partition has a server that accepts records");
                return Ok(());
            }
            let _ = crossbeam_channel::after(TOPIC_CHECK_INTERVAL).recv();
        }
    }

    fn create_topics(&self, topics: &[String]) -> Result<()> {
        let partitions = self.url.partitions();
        let action = format!("create the topics {} with {partitions} partitions", topics.join(", "));
        let creating = |error| failed(&action, error);
        let mut config: ClientConfig = self.url.renewed()?.config(&ALL_CLIENTS);
        // The client that reads reports the same errors, so this one logs nothing.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let admin: AdminClient<Context> = config.create_with_context(Context::default()).map_err(creating)?;
        let new = topics.iter().map(|topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(-1)));
        let new: Vec<_> = new.collect();
        let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime =
            runtime.map_err(|error| Error::caused(ErrorKind::Unavailable, format_args!("cannot {action}"), error))?;
        for created in runtime.block_on(admin.create_topics(&new, &options)).map_err(creating)? {
            match created {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    let way_out = "create it by hand, or let this user create topics";
                    let why =
                        format!("cannot create the topic {topic} with {partitions} partitions: {code}: {way_out}");
                    return Err(Error::new(kind_of(code), why));
                }
            }
        }
        let deadline = Instant::now() + TOPIC_TIMEOUT;
        for topic in topics {
            while self.partition_count(topic)? == 0 {
                if Instant::now() > deadline {
                    let why = format!("the new topic {topic} is still unknown after {TOPIC_TIMEOUT:?}");
                    return Err(Error::new(ErrorKind::Unavailable, why));
                }
                let _ = crossbeam_channel::after(TOPIC_CHECK_INTERVAL).recv();
            }
        }
        Ok(())
    }

    pub(super) fn is_known_topic(&self, topic: &str) -> bool {
        self.existing_topics.lock().contains(topic)
    }

    /// The topic was deleted. Its next use looks for it again.
    pub(super) fn forget_topic(&self, topic: &str) {
        self.existing_topics.lock().remove(topic);
    }

    /// Runs `call`, which may block, on a thread of its own, and returns its result.
    pub(super) async fn run_blocking<T: Send + 'static>(
        self: &Arc<Self>,
        action: &str,
        call: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = Arc::clone(self);
        let run = move || {
            let result = call(&cluster);
            cluster.drop_abandoned_client();
            result
        };
        self.blocking_calls.run(action, run).await
    }

    /// Ends a client whose requests have no answers, before these come. The next call opens another.
    fn drop_abandoned_client(&self) {
        let abandoned = self.client.lock().take_if(|client| client.context().is_abandoned());
        drop(abandoned);
    }
}

/// The error of a call, with the reason if librdkafka has reported one.
pub(super) fn call_error(client: &BaseConsumer<Context>, action: &str, error: KafkaError) -> Error {
    let error = failed(action, error);
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    serve_events(client);
    client.context().reported_error(action).unwrap_or(error)
}

/// The error of a client that cannot continue. It has the reason, which `error` itself does not contain.
pub(super) fn fatal_error(client: &BaseConsumer<Context>, error: KafkaError) -> Error {
    match client.client().fatal_error() {
        Some((code, why)) => Error::caused(kind_of(code), format_args!("cannot go on: {why}"), error),
        None => failed("go on", error),
    }
}

/// Lets a client that receives no messages report its events.
pub(super) fn serve_events(client: &BaseConsumer<Context>) {
    loop {
        let count = client.context().event_count();
        if client.poll(Duration::ZERO).is_none() && client.context().event_count() == count {
            return;
        }
    }
}
