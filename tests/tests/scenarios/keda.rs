//! KEDA's external scaler contract, kept by the running program over real gRPC. What a scaler must do, by number:
//!
//! | | a scaler |
//! |---|---|
//! | C1 | serves all five calls, also to clients that know only the integer fields |
//! | C2 | names its metric the same for ever, in characters that Kubernetes takes |
//! | C3 | answers for the metric that was asked for alone, and once |
//! | C4 | says a target of at least 0.001, as an integer of at least 1 |
//! | C5 | says values that are finite and at least 0; the integer is rounded up |
//! | C6 | answers with an error, never 0, while it cannot know |
//! | C7 | says its target with every broker down |
//! | C8 | never hangs |
//! | C9 | is not changed by being asked |
//! | C10 | speaks of one moment in all calls; a lease and a loading worker make a pool active |
//! | C11 | compares with the activation as greater |
//! | C12 | pushes the state at once, then edges to active, and repeats only until a worker registers |
//! | C13 | leaves nothing of a cancelled stream, and ends streams well when it stops |
//! | C14 | asks silent connections, and serves thousands of streams on one |
//! | C15 | answers the same from every replica |
//! | C16 | bears unknown keys, and names the key of a bad value |
//! | C17 | answers a namespace for its pools alone, and never says a secret |
//! | C18 | speaks TLS and mutual TLS with certificates that are renewed, and plain text by choice |
//! | C19 | serves a ScaledJob alike |
//! | C20 | never sends an empty list of specs, and is ready while its broker is away |
//! | C21 | keeps the target and moves the value |

mod answers;
mod away;
mod explain;
mod integers;
mod keepalive;
mod streams;
mod tenancy;
mod tls;

use std::collections::HashMap;

use futures::FutureExt;
use jiff::Timestamp;
use millrace_tests::{BrokerKind, Process, Scaler, System, until};
use proto::externalscaler::external_scaler_client::ExternalScalerClient;
use proto::externalscaler::{GetMetricsRequest, IsActiveResponse, MetricSpec, MetricValue, ScaledObjectRef};
use queue::{Backend, Body, Class, Input, Job, JobId, PoolName, Settlement, WorkerId, WorkerRecord, WorkerState};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// The trigger's key for jobs of backlog per worker.
const TARGET_KEY: &str = "value";
/// The trigger's key for the backlog above which the first worker starts.
const ACTIVATION_KEY: &str = "activationValue";
/// How a pool is refused that is none.
const UNKNOWN_POOL: Code = Code::InvalidArgument;

/// Two pools, read often.
const YAML: &str = "
scaler: {sample_interval: 20ms}
pools:
  echo: {model: echo, scale: {trigger: {value: '2.5'}}}
  other: {model: echo}
";

/// A trigger as KEDA sends it: the whole metadata.
fn object(pool: &str) -> ScaledObjectRef {
    with(pool, &[])
}

/// As [`object`], with more metadata.
fn with(pool: &str, more: &[(&str, &str)]) -> ScaledObjectRef {
    let kedas = [("scalerAddress", "millrace-scaler.millrace:9090"), ("pool", pool)];
    let pairs = kedas.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    ScaledObjectRef {
        name: format!("{pool}-workers"),
        namespace: "default".to_owned(),
        scaler_metadata: pairs.collect(),
    }
}

/// A client as KEDA has it: one connection for all it asks.
#[derive(Clone)]
struct Keda {
    client: ExternalScalerClient<Channel>,
}

impl Keda {
    async fn of(scaler: &Scaler) -> Self {
        Self { client: scaler.connect().await.unwrap() }
    }

    async fn spec(&mut self, object: &ScaledObjectRef) -> Result<MetricSpec, Status> {
        let specs = self.client.get_metric_spec(object.clone()).await?.into_inner().metric_specs;
        assert_eq!(specs.len(), 1, "{specs:?}");
        Ok(specs.into_iter().next().unwrap())
    }

    /// The value of the metric that is called so.
    async fn named(&mut self, object: &ScaledObjectRef, metric_name: &str) -> Result<MetricValue, Status> {
        let request =
            GetMetricsRequest { scaled_object_ref: Some(object.clone()), metric_name: metric_name.to_owned() };
        let values = self.client.get_metrics(request).await?.into_inner().metric_values;
        assert_eq!(values.len(), 1, "{values:?}");
        Ok(values.into_iter().next().unwrap())
    }

    async fn value(&mut self, object: &ScaledObjectRef) -> Result<MetricValue, Status> {
        let name = self.spec(object).await?.metric_name;
        self.named(object, &name).await
    }

    async fn active(&mut self, object: &ScaledObjectRef) -> Result<bool, Status> {
        Ok(self.client.is_active(object.clone()).await?.into_inner().result)
    }

    async fn pushes(&mut self, object: &ScaledObjectRef) -> Result<Streaming<IsActiveResponse>, Status> {
        Ok(self.client.stream_is_active(object.clone()).await?.into_inner())
    }

    /// How each of the five calls is answered, streams by their first message.
    async fn all_five(&mut self, object: &ScaledObjectRef, metric_name: &str) -> HashMap<&'static str, Option<Status>> {
        let mut specs = self.client.stream_metric_spec(object.clone()).await;
        let specs = match &mut specs {
            Ok(opened) => opened.get_mut().message().await.map(drop).err(),
            Err(status) => Some(status.clone()),
        };
        let pushes = match self.pushes(object).await {
            Ok(mut opened) => opened.message().await.err(),
            Err(status) => Some(status),
        };
        HashMap::from([
            ("GetMetricSpec", self.spec(object).await.err()),
            ("GetMetrics", self.named(object, metric_name).await.err()),
            ("IsActive", self.active(object).await.err()),
            ("StreamIsActive", pushes),
            ("StreamMetricSpec", specs),
        ])
    }

    /// Asks until the value is `wanted`.
    async fn until_value(&self, object: &ScaledObjectRef, wanted: f64) -> MetricValue {
        until(format_args!("the value is {wanted}"), async || {
            let value = self.clone().value(object).await?;
            Ok((value.metric_value_float == wanted).then_some(value))
        })
        .await
        .unwrap()
    }
}

/// A stream's next message, which must come.
async fn next(pushes: &mut Streaming<IsActiveResponse>) -> bool {
    let message = tokio::time::timeout(Duration::from_secs(60), pushes.message());
    message.await.expect("nothing is pushed").unwrap().expect("the stream has ended").result
}

/// Whether a stream is open and has said nothing since it was last listened to.
fn is_silent(pushes: &mut Streaming<IsActiveResponse>) -> bool {
    pushes.message().now_or_never().is_none()
}

fn pool(name: &str) -> PoolName {
    name.parse().unwrap()
}

fn job(pool_name: &str) -> Job {
    Job {
        id: JobId::generate(),
        pool: pool(pool_name),
        class: Class::Standard,
        input: Input { media_type: "text/plain".to_owned(), body: Body::Inline("job".into()) },
        created_at: Timestamp::now(),
        deadline_at: None,
        max_attempts: 1,
        retention: Duration::from_secs(60),
        trace_parent: None,
        origin: None,
    }
}

/// Publishes so many jobs of a producer that does not write to the ledger.
async fn publish(backend: &Backend, pool: &str, jobs: usize) {
    let jobs: Vec<Job> = (0..jobs).map(|_| job(pool)).collect();
    backend.broker.producer().await.unwrap().publish(&jobs).await.unwrap();
}

/// Takes so many jobs off the broker.
async fn consume(backend: &Backend, name: &str, jobs: usize) {
    let consumer = backend.broker.consumer(&pool(name)).await.unwrap();
    let mut taken = 0;
    while taken < jobs {
        let deliveries = consumer.receive(jobs - taken).await.unwrap();
        taken += deliveries.len();
        consumer.settle(deliveries.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await.unwrap();
    }
}

/// A worker that has run nothing yet.
fn worker(name: &str, state: WorkerState) -> WorkerRecord {
    let id = WorkerId::new(format!("{name}-{}", JobId::generate()));
    WorkerRecord { state, ..WorkerRecord::new(id, pool(name), Timestamp::now()) }
}

/// Enters a worker, for longer than any test takes.
async fn register(backend: &Backend, name: &str, state: WorkerState) -> WorkerId {
    let worker = worker(name, state);
    backend.roster.heartbeat(&worker, Duration::from_secs(600)).await.unwrap();
    worker.id
}

/// A system on the embedded broker, its scaler and a client.
async fn running() -> (System, Scaler, Keda) {
    let system = System::new(YAML).unwrap();
    let scaler = system.scaler().await.unwrap();
    let keda = Keda::of(&scaler).await;
    (system, scaler, keda)
}
