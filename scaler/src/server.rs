//! Serves KEDA's calls from the last readings.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use proto::externalscaler::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use queue::{Gauge, Ledger, PoolName, Roster};
use service::Health;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::push::Push;
use crate::reading::Reading;
use crate::sampler::Sampler;
use crate::trigger::{Trigger, TriggerError};
use crate::{PoolScale, ScalerSettings, metric_name, metrics, policy};

/// One connection carries the streams of every ScaledObject of a cluster.
const MOST_STREAMS: u32 = 100_000;

/// After this long a connection that has not ended by itself is cut.
const DRAIN: Duration = Duration::from_secs(5);

/// Where the numbers come from.
#[derive(Clone)]
pub struct Sources {
    /// What is in the broker.
    pub gauge: Arc<dyn Gauge>,
    /// What is with the ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Which workers are alive.
    pub roster: Arc<dyn Roster>,
}

/// Why the scaler cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listening socket failed.
    #[error("the scaler's socket failed")]
    Serve(#[source] tonic::transport::Error),
}

/// Serves KEDA on `listener` until `stop`; then ends its streams, answers what has been asked, and returns.
///
/// Ready from the start: whether a broker can be read is said in the answers, and a scaler taken out of its Service
/// could not even say that.
pub async fn run(
    listener: TcpListener,
    settings: ScalerSettings,
    pools: BTreeMap<PoolName, PoolScale>,
    sources: Sources,
    health: Health,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let sampler = Sampler::start(pools.keys().cloned(), &sources, &settings);
    let keepalive = settings.keepalive_interval.get();
    let scaler = Scaler { settings, pools, sampler, stop: stop.clone() };
    let serving = Server::builder()
        .http2_keepalive_interval(Some(keepalive))
        .http2_keepalive_timeout(Some(keepalive))
        .max_concurrent_streams(Some(MOST_STREAMS))
        .add_service(ExternalScalerServer::new(scaler))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.clone().cancelled_owned(),
        );
    health.ready("scaler");
    tracing::info!("the scaler is ready");
    let cut = async {
        stop.cancelled().await;
        health.not_ready("scaler", "stopping");
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        // First, so that it is not ready any more before the last connection ends.
        biased;
        () = cut => {
            tracing::warn!(drain_seconds = DRAIN.as_secs_f64(), "connections that did not end are cut");
            Ok(())
        }
        served = serving => served.map_err(RunError::Serve),
    }
}

struct Scaler {
    settings: ScalerSettings,
    pools: BTreeMap<PoolName, PoolScale>,
    sampler: Sampler,
    stop: CancellationToken,
}

impl Scaler {
    fn trigger(&self, object: &ScaledObjectRef) -> Result<Trigger, Status> {
        Trigger::read(&object.scaler_metadata, &self.pools).map_err(|error| match error {
            TriggerError::Invalid(_) => Status::invalid_argument(error.to_string()),
            TriggerError::UnknownPool(_) => Status::not_found(error.to_string()),
        })
    }

    /// The last reading, if it may be spoken of. Waits only where there has not been a first one yet.
    async fn reading(&self, pool: &PoolName) -> Result<Reading, Status> {
        let mut samples = self.sampler.samples(pool).ok_or_else(|| Status::not_found(format!("pool: {pool}")))?;
        let heard = samples.wait_for(|sample| sample.reading.is_some() || sample.failure.is_some());
        // Whatever comes of the wait, the sample itself says what is known.
        let _ = timeout(self.settings.answer_timeout.get(), heard).await;
        let sample = samples.borrow();
        match sample.fresh(Instant::now(), self.settings.max_reading_age.get()) {
            Ok(reading) => Ok(reading.clone()),
            Err(unknown) => Err(Status::unavailable(format!("pool {pool}: {unknown}"))),
        }
    }

    fn spec(&self, object: &ScaledObjectRef) -> Result<GetMetricSpecResponse, Status> {
        let trigger = self.trigger(object)?;
        let spec = MetricSpec {
            metric_name: metric_name(&trigger.pool),
            target_size: policy::whole_target(trigger.target),
            target_size_float: trigger.target,
        };
        Ok(GetMetricSpecResponse { metric_specs: vec![spec] })
    }

    async fn metrics(&self, request: GetMetricsRequest) -> Result<GetMetricsResponse, Status> {
        let object = request.scaled_object_ref.unwrap_or_default();
        let trigger = self.trigger(&object)?;
        let metric_name = metric_name(&trigger.pool);
        if request.metric_name != metric_name {
            let asked: String = request.metric_name.chars().take(80).collect();
            return Err(Status::not_found(format!("metricName: {asked:?} is not {metric_name:?}")));
        }
        let demand = policy::demand(&self.reading(&trigger.pool).await?, trigger.activation);
        let value = MetricValue {
            metric_name,
            metric_value: policy::whole_value(demand.value),
            metric_value_float: demand.value,
        };
        Ok(GetMetricsResponse { metric_values: vec![value] })
    }

    async fn active(&self, object: &ScaledObjectRef) -> Result<IsActiveResponse, Status> {
        let trigger = self.trigger(object)?;
        let demand = policy::demand(&self.reading(&trigger.pool).await?, trigger.activation);
        Ok(IsActiveResponse { result: demand.active })
    }

    /// Sends what a push stream has to say until the client leaves or the process stops; then the stream ends with OK.
    fn push(&self, object: &ScaledObjectRef) -> Result<ReceiverStream<Result<IsActiveResponse, Status>>, Status> {
        let trigger = self.trigger(object)?;
        let mut samples = self.sampler.samples(&trigger.pool).ok_or_else(|| Status::not_found("pool"))?;
        samples.mark_changed();
        let (sender, receiver) = mpsc::channel(1);
        let (stop, max_age) = (self.stop.clone(), self.settings.max_reading_age.get());
        tokio::spawn(async move {
            let mut push = Push::default();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                    changed = samples.changed() => if changed.is_err() { return },
                }
                let now = Instant::now();
                let message = match samples.borrow_and_update().fresh(now, max_age) {
                    Ok(reading) => {
                        let active = policy::demand(reading, trigger.activation).active;
                        push.next(now, active, reading.workers)
                    }
                    // Nothing is known, so nothing is said.
                    Err(_) => None,
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

/// Counts a call and turns its answer into tonic's.
fn answer<T>(call: &'static str, answer: Result<T, Status>) -> Result<Response<T>, Status> {
    let code = answer.as_ref().err().map_or(tonic::Code::Ok, Status::code);
    ::metrics::counter!(metrics::CALLS, "call" => call, "code" => format!("{code:?}")).increment(1);
    if let Err(status) = &answer {
        tracing::debug!(call, code = ?code, message = status.message(), "a call is refused");
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
        answer("StreamIsActive", self.push(request.get_ref()))
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

    /// The target is constant, so there is one message; the stream stays open, since KEDA calls again when it ends.
    async fn stream_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        let stop = self.stop.clone();
        let stream = self.spec(request.get_ref()).map(|spec| {
            let first = futures::stream::iter([Ok(spec)]);
            let rest = futures::stream::once(async move { stop.cancelled_owned().await });
            Box::pin(futures::StreamExt::chain(first, futures::StreamExt::filter_map(rest, async |()| None))) as _
        });
        answer("StreamMetricSpec", stream)
    }
}

#[cfg(test)]
mod tests;
