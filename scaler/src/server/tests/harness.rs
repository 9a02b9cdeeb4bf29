//! A scaler on a free port with fake sources, and a client like KEDA's client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use proto::externalscaler::external_scaler_client::ExternalScalerClient;
use queue::ledger::{DueJob, Publication};
use queue::{
    BlobRef, Claim, ClaimRequest, DeadFilter, DeadPage, DeadPosition, Depth, Error, ErrorKind, Finish, Finished,
    Forgotten, Gauge, Input, Job, JobCounts, JobId, JobRecord, Lease, Ledger, Measured, Purged, Requeued, Result, Risk,
    Roster, Submitted, WorkerId, WorkerRecord, WorkerState,
};
use service::Period;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::super::*;

/// How the fake sources react to a call.
#[derive(Debug, Clone, Default)]
pub(super) enum Reaction {
    #[default]
    Answer,
    Fail,
    Hang,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    pub(super) waiting: u64,
    pub(super) in_flight: Option<u64>,
    pub(super) queued: u64,
    pub(super) leased: u64,
    pub(super) retry: u64,
    pub(super) workers: Vec<WorkerState>,
    pub(super) reaction: Reaction,
    /// The earlier measurements in the roster, and its reaction to a request for them.
    pub(super) measured: Option<Measured>,
    pub(super) recall: Reaction,
}

/// A broker, a ledger and a roster. Each pool has its own numbers and its own reaction.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) numbers: Mutex<HashMap<String, Numbers>>,
    /// Notified at every call.
    pub(super) called: Notify,
    /// The number of requests for earlier measurements.
    pub(super) recalls: AtomicUsize,
}

impl Fake {
    pub(super) fn set(&self, pool: &str, numbers: Numbers) {
        self.numbers.lock().insert(pool.to_owned(), numbers);
    }

    pub(super) async fn answer(&self, pool: &PoolName) -> Result<Numbers> {
        let numbers = self.numbers.lock().get(pool.as_str()).cloned().unwrap_or_default();
        self.called.notify_one();
        numbers.reaction.apply().await?;
        Ok(numbers)
    }
}

impl Reaction {
    async fn apply(&self) -> Result<()> {
        match self {
            Self::Answer => Ok(()),
            Self::Fail => Err(unavailable()),
            Self::Hang => std::future::pending().await,
        }
    }
}

pub(super) fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "amqp://user:hunter2@broker is down")
}

#[async_trait]
impl Gauge for Fake {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let mut depths = Vec::with_capacity(pools.len());
        for pool in pools {
            depths.push(self.answer(pool).await.map(|numbers| Depth {
                waiting_by_class: [0, numbers.waiting, 0],
                in_flight: numbers.in_flight,
                oldest_waiting_at: None,
                max_consumers: None,
            }));
        }
        depths
    }
}

#[async_trait]
impl Roster for Fake {
    async fn heartbeat(&self, _: &WorkerRecord, _: Duration) -> Result<()> {
        Err(unavailable())
    }

    async fn leave(&self, _: &WorkerId) -> Result<()> {
        Err(unavailable())
    }

    async fn workers(&self, pools: &[PoolName]) -> Result<Vec<Vec<WorkerRecord>>> {
        let mut workers = Vec::new();
        for pool in pools {
            let states = self.answer(pool).await?.workers.into_iter().enumerate();
            let worker = |(index, state): (usize, WorkerState)| {
                let id = WorkerId::new(index.to_string());
                WorkerRecord { state, ..WorkerRecord::new(id, pool.clone(), jiff::Timestamp::UNIX_EPOCH) }
            };
            workers.push(states.map(worker).collect());
        }
        Ok(workers)
    }

    async fn measured(&self, pools: &[PoolName]) -> Result<Vec<Option<Measured>>> {
        self.recalls.fetch_add(1, Ordering::Relaxed);
        let mut measured = Vec::with_capacity(pools.len());
        for pool in pools {
            let numbers = self.answer(pool).await?;
            numbers.recall.apply().await?;
            measured.push(numbers.measured);
        }
        Ok(measured)
    }
}

/// The scaler uses only `counts` and `arrivals` of the ledger. Every other call is an error.
#[async_trait]
impl Ledger for Fake {
    async fn counts(&self, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
        let mut counts = Vec::with_capacity(pools.len());
        for pool in pools {
            let Numbers { queued, leased, retry, .. } = self.answer(pool).await?;
            counts.push(JobCounts { queued, leased, retry, ended: 0 });
        }
        Ok(counts)
    }

    async fn arrivals(&self) -> Result<BoxStream<'static, Result<PoolName>>> {
        Err(unavailable())
    }

    async fn submit(&self, _: &[Job]) -> Result<Vec<Submitted>> {
        Err(unavailable())
    }

    async fn published(&self, _: &[Publication]) -> Result<()> {
        Err(unavailable())
    }

    async fn claim(&self, _: &WorkerId, _: Vec<ClaimRequest>, _: Duration) -> Result<Vec<Claim>> {
        Err(unavailable())
    }

    async fn begin(&self, _: &Lease) -> Result<bool> {
        Err(unavailable())
    }

    async fn renew(&self, _: &[Lease], _: Duration) -> Result<Vec<bool>> {
        Err(unavailable())
    }

    async fn finish(&self, _: Vec<Finish>) -> Result<Vec<Finished>> {
        Err(unavailable())
    }

    async fn input(&self, _: &JobId) -> Result<Option<Input>> {
        Err(unavailable())
    }

    async fn dead(&self, _: &DeadFilter, _: Option<&DeadPosition>, _: usize) -> Result<DeadPage> {
        Err(unavailable())
    }

    async fn requeue(&self, _: &JobId, _: Option<Input>) -> Result<Requeued> {
        Err(unavailable())
    }

    async fn forget(&self, _: &JobId) -> Result<Forgotten> {
        Err(unavailable())
    }

    async fn purge_dead(&self, _: &DeadFilter, _: usize) -> Result<Purged> {
        Err(unavailable())
    }

    async fn id(&self) -> Result<String> {
        Err(unavailable())
    }

    async fn blob_store(&self, _: Option<&str>) -> Result<Option<String>> {
        Err(unavailable())
    }

    async fn risks(&self) -> Result<Vec<Risk>> {
        Err(unavailable())
    }

    async fn cancel(&self, _: &JobId) -> Result<Option<JobRecord>> {
        Err(unavailable())
    }

    async fn get(&self, _: &JobId) -> Result<Option<JobRecord>> {
        Err(unavailable())
    }

    async fn watch(&self, _: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>> {
        Err(unavailable())
    }

    async fn due(&self, _: usize) -> Result<Vec<DueJob>> {
        Err(unavailable())
    }

    async fn hold_upkeep(&self, _: &str, _: Duration) -> Result<bool> {
        Err(unavailable())
    }

    async fn purge(&self, _: usize) -> Result<Option<Vec<BlobRef>>> {
        Err(unavailable())
    }
}

/// A scaler on a free port with two pools, and a client like that of KEDA.
pub(super) struct Running {
    pub(super) fake: Arc<Fake>,
    pub(super) client: ExternalScalerClient<Channel>,
    pub(super) health: Health,
    pub(super) stop: CancellationToken,
    pub(super) served: JoinHandle<Result<(), RunError>>,
}

pub(super) fn quick() -> ScalerSettings {
    ScalerSettings { sample_interval: Period::millis(5), ..ScalerSettings::default() }
}

pub(super) fn pools() -> BTreeMap<PoolName, PoolScale> {
    let trigger = [("value".to_owned(), "2.5".to_owned())].into();
    let scale = PoolScale { trigger, ..PoolScale::default() };
    BTreeMap::from([("digits".parse().unwrap(), scale.clone()), ("letters".parse().unwrap(), scale)])
}

pub(super) fn sources(fake: &Arc<Fake>) -> Sources {
    Sources::new(fake.clone(), fake.clone(), fake.clone())
}

pub(super) async fn running(settings: ScalerSettings, numbers: Numbers) -> Running {
    let fake = Arc::new(Fake::default());
    fake.set("digits", numbers);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (health, stop) = (Health::new(), CancellationToken::new());
    let served = tokio::spawn(run(
        listener,
        settings,
        pools(),
        sources(&fake),
        Journal::default(),
        health.clone(),
        stop.clone(),
    ));
    let client = ExternalScalerClient::connect(address).await.unwrap();
    Running { fake, client, health, stop, served }
}

pub(super) fn object(pairs: &[(&str, &str)]) -> ScaledObjectRef {
    let metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ScaledObjectRef { name: "digits".to_owned(), namespace: "default".to_owned(), scaler_metadata: metadata }
}

pub(super) fn digits() -> ScaledObjectRef {
    object(&[("scalerAddress", "millrace-scaler:9090"), ("pool", "digits")])
}

pub(super) fn metrics_of(object: ScaledObjectRef, name: &str) -> GetMetricsRequest {
    GetMetricsRequest { scaled_object_ref: Some(object), metric_name: name.to_owned() }
}

impl Running {
    pub(super) async fn spec(&mut self, object: ScaledObjectRef) -> MetricSpec {
        let specs = self.client.get_metric_spec(object).await.unwrap().into_inner().metric_specs;
        assert_eq!(specs.len(), 1);
        specs.into_iter().next().unwrap()
    }

    pub(super) async fn value(&mut self) -> Result<MetricValue, Status> {
        self.value_of(digits()).await
    }

    pub(super) async fn value_of(&mut self, object: ScaledObjectRef) -> Result<MetricValue, Status> {
        let response = self.client.get_metrics(metrics_of(object, "millrace-digits")).await?;
        let values = response.into_inner().metric_values;
        assert_eq!(values.len(), 1);
        Ok(values.into_iter().next().unwrap())
    }

    pub(super) async fn active(&mut self) -> Result<bool, Status> {
        Ok(self.client.is_active(digits()).await?.into_inner().result)
    }

    /// Calls GetMetrics after every reading until `good` accepts the answer.
    pub(super) async fn until(
        &mut self,
        good: impl Fn(&Result<MetricValue, Status>) -> bool,
    ) -> Result<MetricValue, Status> {
        self.until_of(digits(), good).await
    }

    pub(super) async fn until_of(
        &mut self,
        object: ScaledObjectRef,
        good: impl Fn(&Result<MetricValue, Status>) -> bool,
    ) -> Result<MetricValue, Status> {
        let calls = async {
            loop {
                let answer = self.value_of(object.clone()).await;
                if good(&answer) {
                    return answer;
                }
                self.fake.called.notified().await;
            }
        };
        timeout(Duration::from_secs(30), calls).await.expect("no answer was accepted")
    }

    pub(super) async fn finish(self) {
        self.stop.cancel();
        drop(self.client);
        self.served.await.unwrap().unwrap();
    }
}

pub(super) fn five() -> Numbers {
    Numbers { waiting: 1, in_flight: Some(2), leased: 1, retry: 2, ..Numbers::default() }
}
