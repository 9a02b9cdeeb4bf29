//! Answers KEDA's calls from the last readings.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures::{FutureExt, Stream};
use jiff::Timestamp;
use policy::{Decision, POOL_KEY, Trigger, metric_name};
use proto::externalscaler::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use queue::PoolName;
use service::tls::Protocol;
use service::{Faults, Health, Tls};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::explain::Journal;
use crate::listen::{accept, first_byte};
use crate::metrics::{self, OpenStream};
use crate::push::Push;
use crate::readings::PoolReadings;
use crate::sampler::{Sampler, Sources};
use crate::settings::{PoolScale, ScalerSettings};

/// The maximum number of streams per connection. KEDA uses one connection for all ScaledObjects of a cluster.
const MAX_STREAMS: u32 = 100_000;

/// The maximum size of headers. A ScaledObject's metadata is in the message, so headers are short.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The time limit for the handshake of a connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for connections to end after the stop. Connections that are still open are then closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the scaler has ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listening socket failed.
    #[error("the scaler's socket failed")]
    Serve(#[source] tonic::transport::Error),
    /// The files for TLS have faults.
    #[error("{0}")]
    Tls(Faults),
}

/// Serves KEDA on `listener` until `stop`. Then it ends the push streams, answers the open calls and returns.
///
/// The scaler is ready from the start. Its answers report whether the broker can be read. Kubernetes would remove a
/// scaler that is not ready from its Service, and KEDA would not get these answers.
pub async fn run(
    listener: TcpListener,
    settings: ScalerSettings,
    pools: BTreeMap<PoolName, PoolScale>,
    sources: Sources,
    journal: Journal,
    health: Health,
    stop: CancellationToken,
) -> Result<(), RunError> {
    metrics::describe();
    let tls = match settings.tls.clone() {
        Some(tls) => Some(Tls::open("scaler.tls", tls, Protocol::Http2).await.map_err(RunError::Tls)?),
        None => None,
    };
    for (pool, scale) in &pools {
        for key in policy::deprecated_keys(&scale.trigger) {
            tracing::warn!(%pool, key, "a key of the pool's scale.trigger has no effect any more: remove it");
        }
    }
    let sampler = Sampler::start(pools.keys().cloned(), &sources, &settings);
    let keepalive = settings.keepalive_interval.get();
    let scaler = Scaler { settings, pools, sampler, journal, stop: stop.clone() };
    // Connections have no maximum age, because KEDA waits before it reopens its streams.
    let router = Server::builder()
        .http2_keepalive_interval(Some(keepalive))
        .http2_keepalive_timeout(Some(keepalive))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        .add_service(ExternalScalerServer::new(scaler));
    let stopped = stop.clone().cancelled_owned();
    let serving = match tls {
        None => {
            let connections = accept(listener, stop.clone(), HANDSHAKE_TIMEOUT, first_byte);
            router.serve_with_incoming_shutdown(connections, stopped).left_future()
        }
        Some(tls) => {
            let connections = accept(listener, stop.clone(), HANDSHAKE_TIMEOUT, move |socket| tls.handshake(socket));
            router.serve_with_incoming_shutdown(connections, stopped).right_future()
        }
    };
    health.ready("scaler");
    tracing::info!("the scaler is ready");
    let drained = async {
        stop.cancelled().await;
        health.not_ready("scaler", "stopping");
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        // `drained` is polled first, so that readiness ends before the last connection does.
        biased;
        () = drained => {
            tracing::warn!(drain_seconds = DRAIN_TIMEOUT.as_secs_f64(), "connections that are still open are closed");
            Ok(())
        }
        served = serving => served.map_err(RunError::Serve),
    }
}

struct Scaler {
    settings: ScalerSettings,
    pools: BTreeMap<PoolName, PoolScale>,
    sampler: Sampler,
    journal: Journal,
    stop: CancellationToken,
}

impl Scaler {
    fn trigger(&self, object: &ScaledObjectRef) -> Result<Trigger, Status> {
        let pool = object.scaler_metadata.get(POOL_KEY).map_or("", |pool| pool.trim());
        self.settings.namespaces.check(&object.namespace, pool)?;
        let configured = |pool: &PoolName| self.pools.get(pool).map(|scale| &scale.trigger);
        Trigger::read(&object.scaler_metadata, configured).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// The decision for the last reading, if this reading is recent enough. This waits only for the first reading of
    /// the pool.
    async fn decide(&self, object: &ScaledObjectRef, trigger: &Trigger) -> Result<Decision, Status> {
        let pool = &trigger.pool;
        let mut readings = self.subscribe(pool)?;
        let first = readings.wait_for(|readings| readings.history.latest().is_some() || readings.failure.is_some());
        // After a timeout, `current` below reports the missing reading.
        let _ = timeout(self.settings.answer_timeout.get(), first).await;
        let unavailable = |why: &dyn std::fmt::Display| Status::unavailable(format!("pool {pool}: {why}"));
        let readings = readings.borrow();
        let current = readings.current(self.sampler.clock().now(), self.settings.max_reading_age.get());
        let history = current.map_err(|missing| unavailable(&missing))?;
        let decision = policy::decide(history, &trigger.scaling, Timestamp::now());
        let decision = decision.ok_or_else(|| unavailable(&"there is no reading yet"))?;
        metrics::record_decision(pool, &trigger.scaling, &decision);
        let object = format!("{}/{}", object.namespace, object.name);
        self.journal.record(pool, object, &trigger.scaling, history, decision.clone());
        Ok(decision)
    }

    fn subscribe(&self, pool: &PoolName) -> Result<watch::Receiver<PoolReadings>, Status> {
        self.sampler.subscribe(pool).ok_or_else(|| Status::internal(format!("pool {pool} is not sampled")))
    }

    fn spec(&self, object: &ScaledObjectRef) -> Result<GetMetricSpecResponse, Status> {
        let trigger = self.trigger(object)?;
        let spec = MetricSpec {
            metric_name: metric_name(&trigger.pool),
            target_size: policy::whole_target(trigger.scaling.mode.target()),
            target_size_float: trigger.scaling.mode.target(),
        };
        Ok(GetMetricSpecResponse { metric_specs: vec![spec] })
    }

    async fn metrics(&self, request: GetMetricsRequest) -> Result<GetMetricsResponse, Status> {
        let object = request.scaled_object_ref.unwrap_or_default();
        let trigger = self.trigger(&object)?;
        let metric_name = metric_name(&trigger.pool);
        if request.metric_name != metric_name {
            let requested: String = request.metric_name.chars().take(80).collect();
            return Err(Status::not_found(format!("metricName: {requested:?} is not {metric_name:?}")));
        }
        let decision = self.decide(&object, &trigger).await?;
        self.sampler.request(&trigger.pool, decision.value / decision.target);
        let value = MetricValue {
            metric_name,
            metric_value: policy::whole_value(decision.value),
            metric_value_float: decision.value,
        };
        Ok(GetMetricsResponse { metric_values: vec![value] })
    }

    async fn active(&self, object: &ScaledObjectRef) -> Result<IsActiveResponse, Status> {
        let trigger = self.trigger(object)?;
        Ok(IsActiveResponse { result: self.decide(object, &trigger).await?.active })
    }

    /// Opens a push stream. It ends with OK when the client disconnects or the process stops. `clock` is the clock for
    /// schedules.
    fn push(
        &self,
        object: &ScaledObjectRef,
        clock: impl Fn() -> Timestamp + Send + 'static,
    ) -> Result<ReceiverStream<Result<IsActiveResponse, Status>>, Status> {
        let trigger = self.trigger(object)?;
        let mut readings = self.subscribe(&trigger.pool)?;
        readings.mark_changed();
        let (sender, receiver) = mpsc::channel(1);
        let (stop, max_age) = (self.stop.clone(), self.settings.max_reading_age.get());
        let sampler_clock = self.sampler.clock();
        let open = OpenStream::of("StreamIsActive");
        tokio::spawn(async move {
            let _open = open;
            let mut push = Push::default();
            loop {
                // A scheduled floor can change the activity of a pool without a new reading.
                let calendar =
                    trigger.scaling.schedule.next_change(clock()).map(|at| Instant::now() + until(at, clock()));
                let due = push.due().into_iter().chain(calendar).min();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                    changed = readings.changed() => if changed.is_err() { return },
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                }
                let message = match readings.borrow_and_update().current(sampler_clock.now(), max_age) {
                    Ok(history) => history.latest().and_then(|reading| {
                        let active = policy::is_active(history, &trigger.scaling, clock());
                        push.next(Instant::now(), active, reading.fleet.total())
                    }),
                    // Without a current reading the state is unknown.
                    Err(_) => push.wait(Instant::now()),
                };
                if let Some(result) = message {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        sent = sender.send(Ok(IsActiveResponse { result })) => if sent.is_err() { return },
                    }
                }
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

/// The time from `now` until `at`. 0 for a time in the past.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// Counts a call and converts its answer for tonic.
fn answer<T>(call: &'static str, answer: Result<T, Status>) -> Result<Response<T>, Status> {
    let code = answer.as_ref().err().map_or(tonic::Code::Ok, Status::code);
    ::metrics::counter!(metrics::CALLS, "call" => call, "code" => format!("{code:?}")).increment(1);
    if let Err(status) = &answer {
        tracing::debug!(call, code = ?code, message = status.message(), "a call ends with an error");
    }
    answer.map(Response::new)
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = ReceiverStream<Result<IsActiveResponse, Status>>;
    type StreamMetricSpecStream = Pin<Box<dyn Stream<Item = Result<GetMetricSpecResponse, Status>> + Send>>;

    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        answer("IsActive", self.active(request.get_ref()).await)
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        answer("StreamIsActive", self.push(request.get_ref(), Timestamp::now))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        answer("GetMetricSpec", self.spec(request.get_ref()))
    }

    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        answer("GetMetrics", self.metrics(request.into_inner()).await)
    }

    /// Sends one message, because the target is constant. The stream stays open, because KEDA would reopen it when it
    /// ends.
    async fn stream_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        let stop = self.stop.clone();
        let stream = self.spec(request.get_ref()).map(|spec| {
            let open = OpenStream::of("StreamMetricSpec");
            let first = futures::stream::iter([Ok(spec)]);
            let rest = futures::stream::once(async move {
                let _open = open;
                stop.cancelled_owned().await;
            });
            Box::pin(futures::StreamExt::chain(first, futures::StreamExt::filter_map(rest, async |()| None))) as _
        });
        answer("StreamMetricSpec", stream)
    }
}

#[cfg(test)]
mod tests;
