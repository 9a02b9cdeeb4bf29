//! KEDA's external scaler contract, tested with the running program over real gRPC. The rules, by number:
//!
//! | | a scaler |
//! |---|---|
//! | C1 | serves all five calls, also to clients that read only the integer fields |
//! | C2 | always gives its metric the same name, in characters that Kubernetes accepts |
//! | C3 | answers only for the requested metric, with one value |
//! | C4 | returns a target of at least 0.001, and as an integer of at least 1 |
//! | C5 | returns values that are finite and at least 0; the integer is rounded up |
//! | C6 | returns an error, never 0, while the backlog is unknown |
//! | C7 | returns its target even if every broker is down |
//! | C8 | never hangs |
//! | C9 | is not changed by a call |
//! | C10 | answers all calls from one reading; a lease or a loading worker makes a pool active |
//! | C11 | is active if the backlog is greater than the activation |
//! | C12 | pushes the state at once, then changes to active, and repeats only until a worker registers |
//! | C13 | frees the resources of a cancelled stream, and ends streams without an error when it stops |
//! | C14 | pings idle connections, and serves thousands of streams on one connection |
//! | C15 | gives the same answers from every replica |
//! | C16 | ignores unknown keys, and names the key of a bad value |
//! | C17 | answers a namespace only about its own pools, and never reveals a secret |
//! | C18 | serves TLS and mutual TLS with certificates that are renewed, or plain text by choice |
//! | C19 | answers a ScaledJob as it answers a ScaledObject |
//! | C20 | never sends an empty list of specs, and is ready while its broker is unreachable |
//! | C21 | keeps the target constant and changes the value |

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

/// The trigger's key for the backlog per worker.
const TARGET_KEY: &str = "value";
/// The trigger's key for the backlog above which the first worker starts.
const ACTIVATION_KEY: &str = "activationValue";
/// The status for an unknown pool.
const UNKNOWN_POOL: Code = Code::InvalidArgument;

/// Two pools with frequent readings.
const YAML: &str = "
scaler: {sample_interval: 20ms}
pools:
  echo: {model: echo, scale: {trigger: {value: '2.5'}}}
  other: {model: echo}
";

/// A ScaledObject as KEDA sends it, with the whole metadata of the trigger.
fn object(pool: &str) -> ScaledObjectRef {
    with(pool, &[])
}

/// As [`object`], with additional metadata.
fn with(pool: &str, more: &[(&str, &str)]) -> ScaledObjectRef {
    let kedas = [("scalerAddress", "millrace-scaler.millrace:9090"), ("pool", pool)];
    let pairs = kedas.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    ScaledObjectRef {
        name: format!("{pool}-workers"),
        namespace: "default".to_owned(),
        scaler_metadata: pairs.collect(),
    }
}

/// A client as in KEDA: one connection for all calls.
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

    /// The value of the metric with this name.
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

    /// The error of each of the five calls, if there is one. For a stream, the first message counts.
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

    /// Repeats the call until the value is `wanted`.
    async fn until_value(&self, object: &ScaledObjectRef, wanted: f64) -> MetricValue {
        until(format_args!("the value is {wanted}"), async || {
            let value = self.clone().value(object).await?;
            Ok((value.metric_value_float == wanted).then_some(value))
        })
        .await
        .unwrap()
    }
}

/// The next message of a stream. It must arrive.
async fn next(pushes: &mut Streaming<IsActiveResponse>) -> bool {
    let message = tokio::time::timeout(Duration::from_secs(60), pushes.message());
    message.await.expect("nothing was pushed").unwrap().expect("the stream has ended").result
}

/// Whether a stream is open and has no new message.
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

/// Publishes this number of jobs, as a producer that does not write to the ledger.
async fn publish(backend: &Backend, pool: &str, jobs: usize) {
    let jobs: Vec<Job> = (0..jobs).map(|_| job(pool)).collect();
    backend.broker.producer().await.unwrap().publish(&jobs).await.unwrap();
}

/// Takes this number of jobs from the broker.
async fn consume(backend: &Backend, name: &str, jobs: usize) {
    let consumer = backend.broker.consumer(&pool(name)).await.unwrap();
    let mut taken = 0;
    while taken < jobs {
        let deliveries = consumer.receive(jobs - taken).await.unwrap();
        taken += deliveries.len();
        consumer.settle(deliveries.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await.unwrap();
    }
}

/// A worker that has not run a batch.
fn worker(name: &str, state: WorkerState) -> WorkerRecord {
    let id = WorkerId::new(format!("{name}-{}", JobId::generate()));
    WorkerRecord { state, ..WorkerRecord::new(id, pool(name), Timestamp::now()) }
}

/// Registers a worker with a heartbeat that does not expire during a test.
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
