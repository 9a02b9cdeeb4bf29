//! The servers, as every role of this program needs them: how clients are configured, and the topics.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::FutureProducer;
use tokio::sync::oneshot;

use super::admin::is_not_there;
use super::context::{Context, lock};
use super::error::{failed, kind_of};
use super::url::KafkaUrl;
use queue::{Class, Error, ErrorKind, PoolName, Result, Routes};

/// A call that has not been answered by then has failed.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A piece of work of several calls that has not ended by then has failed.
const WORK_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a new topic may take to be known to the servers, and how often they are asked: they give no sign.
const TOPIC_PATIENCE: Duration = Duration::from_secs(5);
const TOPIC_LOOK: Duration = Duration::from_millis(20);

pub(super) const ALL_CLIENTS: [(&str, &str); 4] = [
    ("client.id", "millrace"),
    ("socket.timeout.ms", "10000"),
    ("reconnect.backoff.max.ms", "2000"),
    // So that a partition that was added is noticed.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

const PRODUCERS: [(&str, &str); 6] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "10000"),
    // Less than that, so that a topic that was deleted is named as the reason, and created again.
    ("topic.metadata.propagation.max.ms", "5000"),
    ("linger.ms", "1"),
    // As Java's producers do it: the same key goes to the same partition, whoever publishes it.
    ("partitioner", "murmur2_random"),
];

const CONSUMERS: [(&str, &str); 10] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("auto.offset.reset", "earliest"),
    ("isolation.level", "read_committed"),
    ("fetch.wait.max.ms", "100"),
    // What is fetched ahead, per partition. It counts as waiting; a class above it is looked at first all the same.
    ("queued.min.messages", "256"),
    ("queued.max.messages.kbytes", "2048"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.max.bytes", "16777216"),
];

/// How the members of a group agree, unless the URL says `group.protocol=consumer`; then the servers decide all this.
///
/// That protocol lets nobody wait for a member that was killed. It is not the default even where the servers have it
/// (Kafka 4.0 and later), because a killed worker's jobs would come again after 45 s rather than within 8: this is what
/// `group.consumer.session.timeout.ms` is unless the servers are told otherwise, and the least they let a group choose.
const CLASSIC_GROUP: [(&str, &str); 3] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    // A killed worker's jobs come again within 10 s.
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "2000"),
];

type Work = Box<dyn FnOnce() + Send>;

/// How many calls may wait for the one thread that makes them.
const DESK_LENGTH: usize = 256;

pub(super) struct Cluster {
    pub(super) url: KafkaUrl,
    pub(super) routes: Routes,
    /// Asks about topics and offsets; member of no group.
    client: Mutex<Option<Arc<BaseConsumer<Context>>>>,
    known_topics: Mutex<HashSet<String>>,
    /// librdkafka's calls block; those that an async caller waits for run on one thread.
    desk: Mutex<Option<Sender<Work>>>,
}

impl Cluster {
    pub(super) fn new(url: &KafkaUrl, routes: &Routes) -> Self {
        Self {
            url: url.clone(),
            routes: routes.clone(),
            client: Mutex::default(),
            known_topics: Mutex::default(),
            desk: Mutex::default(),
        }
    }

    /// The topics whose records are jobs of `pool`, and of which class.
    pub(super) fn topics(&self, pool: &PoolName) -> Vec<(String, Class)> {
        let own = Class::ALL.into_iter().map(|class| (self.url.topic(pool, class), class));
        let others = self.routes.jobs_from(pool).iter().map(|topic| (topic.clone(), Class::default()));
        own.chain(others).collect()
    }

    /// A client that publishes, and what it is told.
    pub(super) fn producer(&self) -> Result<(FutureProducer<Context>, Context)> {
        let context = Context::default();
        Ok((self.create("open a producer", &PRODUCERS, context.clone())?, context))
    }

    /// A member of a pool's group, once it subscribes; before, it only knows what the group has committed.
    pub(super) fn consumer(&self, pool: &PoolName) -> Result<BaseConsumer<Context>> {
        let group = self.url.group(pool);
        let mut defaults = CONSUMERS.to_vec();
        if self.url.property("group.protocol").is_none_or(|protocol| protocol == "classic") {
            defaults.extend(CLASSIC_GROUP);
        }
        defaults.push(("group.id", &group));
        self.create("open a consumer", &defaults, Context::default())
    }

    fn create<C>(&self, action: &str, defaults: &[(&str, &str)], context: Context) -> Result<C>
    where
        C: FromClientConfigAndContext<Context>,
    {
        let mut config = self.url.config(&[&ALL_CLIENTS, defaults].concat());
        // Everything from warnings upwards reaches the context, which decides.
        config.set_log_level(RDKafkaLogLevel::Warning);
        config.create_with_context(context).map_err(|error| failed(action, error))
    }

    /// The client for questions. What it was told about the servers is heard here.
    pub(super) fn client(&self) -> Result<Arc<BaseConsumer<Context>>> {
        let mut client = lock(&self.client);
        if client.is_none() {
            *client = Some(Arc::new(self.create("open a client", &[], Context::default())?));
        }
        client.clone().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the kafka client is gone"))
    }

    /// How many partitions a topic has; 0: there is no such topic.
    pub(super) fn partition_count(&self, topic: &str) -> Result<i32> {
        let action = format!("look up the topic {topic}");
        let client = self.client()?;
        let metadata =
            client.fetch_metadata(Some(topic), CALL_TIMEOUT).map_err(|error| because(&client, &action, error))?;
        client.context().is_well();
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(0) };
        match found.error().map(Code::from) {
            None => Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)),
            Some(code) if is_not_there(code) => Ok(0),
            Some(code) => Err(failed(&action, KafkaError::MetadataFetch(code))),
        }
    }

    /// Creates those of `topics` that are not there. Blocks.
    pub(super) fn ensure_topics(&self, topics: Vec<String>) -> Result<()> {
        let mut missing = Vec::new();
        for topic in topics {
            if !self.is_known(&topic) {
                if self.partition_count(&topic)? == 0 {
                    missing.push(topic);
                } else {
                    lock(&self.known_topics).insert(topic);
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { self.create_topics(missing) }
    }

    fn create_topics(&self, topics: Vec<String>) -> Result<()> {
        let partitions = self.url.partitions();
        let action = format!("create the topics {} with {partitions} partitions", topics.join(", "));
        let creating = |error| failed(&action, error);
        let mut config: ClientConfig = self.url.config(&ALL_CLIENTS);
        // Nobody listens to this client: what it would say the one for questions has said.
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
        let deadline = Instant::now() + TOPIC_PATIENCE;
        for topic in topics {
            while self.partition_count(&topic)? == 0 {
                if Instant::now() > deadline {
                    let why = format!("the new topic {topic} is still unknown after {TOPIC_PATIENCE:?}");
                    return Err(Error::new(ErrorKind::Unavailable, why));
                }
                let _ = crossbeam_channel::after(TOPIC_LOOK).recv();
            }
            lock(&self.known_topics).insert(topic);
        }
        Ok(())
    }

    pub(super) fn is_known(&self, topic: &str) -> bool {
        lock(&self.known_topics).contains(topic)
    }

    /// The topic is gone: look again before using it.
    pub(super) fn forget(&self, topic: &str) {
        lock(&self.known_topics).remove(topic);
    }

    /// Runs `work`, which may block, and waits for what it gives.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        action: &str,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let cluster = Arc::clone(self);
        let work = Box::new(move || {
            // While the servers were out of reach many have asked, and most have given up.
            if !reply.is_closed() {
                drop(reply.send(work(&cluster)));
            }
        });
        let gone = || Error::new(ErrorKind::Unavailable, format_args!("cannot {action}: its thread has ended"));
        self.desk(action)?.try_send(work).map_err(|error| match error {
            TrySendError::Full(_) => {
                let why = format!("cannot {action}: {DESK_LENGTH} calls wait for the servers already");
                Error::new(ErrorKind::Unavailable, why)
            }
            TrySendError::Disconnected(_) => gone(),
        })?;
        match tokio::time::timeout(WORK_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|_| gone())?,
            Err(_) => {
                let why = format!("cannot {action}: no answer within {WORK_TIMEOUT:?}");
                Err(Error::new(ErrorKind::Unavailable, why))
            }
        }
    }

    fn desk(&self, action: &str) -> Result<Sender<Work>> {
        let mut desk = lock(&self.desk);
        if let Some(desk) = &*desk {
            return Ok(desk.clone());
        }
        let (sender, work) = crossbeam_channel::bounded::<Work>(DESK_LENGTH);
        let run = move || work.into_iter().for_each(|work| work());
        std::thread::Builder::new()
            .name("kafka-desk".to_owned())
            .spawn(run)
            .map_err(|error| Error::caused(ErrorKind::Unavailable, format_args!("cannot {action}"), error))?;
        *desk = Some(sender.clone());
        Ok(sender)
    }
}

/// The error of a call, with the reason why where the client was told one.
pub(super) fn because(client: &BaseConsumer<Context>, action: &str, error: KafkaError) -> Error {
    let error = failed(action, error);
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    hear(client);
    client.context().trouble(action).unwrap_or(error)
}

/// Why a client cannot go on: the error that it gives says only that it cannot.
pub(super) fn fatal(client: &BaseConsumer<Context>, error: KafkaError) -> Error {
    match client.client().fatal_error() {
        Some((code, why)) => Error::caused(kind_of(code), format_args!("cannot go on: {why}"), error),
        None => failed("go on", error),
    }
}

/// Lets a client without messages say what it has to say.
pub(super) fn hear(client: &BaseConsumer<Context>) {
    loop {
        let told = client.context().told();
        if client.poll(Duration::ZERO).is_none() && client.context().told() == told {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_is_not_asked_and_no_more_wait_than_can_be() {
        let url = "kafka://127.0.0.1:1".parse().unwrap();
        let cluster = Arc::new(Cluster::new(&url, &Routes::default()));
        let (is_busy, busy) = crossbeam_channel::bounded(0);
        let (go_on, gone_on) = crossbeam_channel::bounded::<()>(0);
        let hold_up = move |_: &Cluster| {
            is_busy.send(()).unwrap();
            gone_on.recv().unwrap();
            Ok(())
        };
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let asked = Arc::clone(&asked);
            let count = move |_: &Cluster| Ok(asked.fetch_add(1, Ordering::Relaxed));
            let cluster = Arc::clone(&cluster);
            async move { cluster.ask("count", count).await }
        };

        let first = tokio::spawn({
            let cluster = Arc::clone(&cluster);
            async move { cluster.ask("hold up", hold_up).await }
        });
        tokio::task::yield_now().await;
        busy.recv().unwrap();
        for _ in 1..DESK_LENGTH {
            assert!(tokio::time::timeout(Duration::ZERO, ask()).await.is_err(), "it cannot have been answered");
        }
        let last = tokio::spawn(ask());
        tokio::task::yield_now().await;
        let error = ask().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("256 calls wait"), "{error}");
        go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(last.await.unwrap().unwrap(), 0);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
