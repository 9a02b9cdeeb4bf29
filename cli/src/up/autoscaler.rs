//! Calls the scaler as KEDA does, calculates as the HPA does, and resizes the fleet.

use std::collections::HashMap;
use std::time::Duration;

use policy::replicas::{CallFailure, Observation, Replicas, Rules};
use proto::externalscaler::external_scaler_client::ExternalScalerClient;
use proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::fleet::Fleet;
use crate::output::print_line;

/// The time limit for a call. KEDA's client has none, but this one must not hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before the push stream is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(2);

/// The autoscaler of one pool.
pub(super) struct Autoscaler {
    pool: String,
    scaler: ExternalScalerClient<Channel>,
    object: ScaledObjectRef,
    rules: Rules,
    fleet: Fleet,
}

impl Autoscaler {
    pub(super) fn new(pool: String, rules: Rules, scaler: ExternalScalerClient<Channel>, fleet: Fleet) -> Self {
        let object = ScaledObjectRef {
            name: pool.clone(),
            namespace: "local".to_owned(),
            scaler_metadata: HashMap::from([(policy::POOL_KEY.to_owned(), pool.clone())]),
        };
        Self { pool, scaler, object, rules, fleet }
    }

    /// Resizes the fleet until `stop`, then stops it.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let started = Instant::now();
        let mut replicas = Replicas::new(self.rules.clone(), 0, Duration::ZERO);
        let mut pushes = None;
        loop {
            let due = started + replicas.due();
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(due) => {
                    let answer = self.poll().await;
                    let wanted = replicas.observe(started.elapsed(), answer);
                    self.follow(wanted, answer.ok());
                }
                pushed = next_push(&mut pushes, &mut self.scaler, &self.object) => {
                    let wanted = replicas.pushed(started.elapsed(), pushed);
                    self.follow(wanted, None);
                }
            }
        }
        self.fleet.stop().await;
    }

    /// One poll by KEDA: all three calls. If one fails, the poll is repeated once, without a pause.
    async fn poll(&mut self) -> Result<Observation, CallFailure> {
        let answer = self.poll_once().await;
        if answer.is_ok() { answer } else { self.poll_once().await }
    }

    async fn poll_once(&mut self) -> Result<Observation, CallFailure> {
        let (scaler, object) = (&mut self.scaler, &self.object);
        let spec = async {
            let spec = scaler.get_metric_spec(object.clone()).await?.into_inner();
            spec.metric_specs.into_iter().next().ok_or_else(|| Status::internal("no metric spec"))
        };
        let spec = answered(&self.pool, spec).await.ok_or(CallFailure::Spec)?;
        let target = spec.target_size_float;
        let observation = async {
            let scaled_object_ref = Some(object.clone());
            let request = GetMetricsRequest { scaled_object_ref, metric_name: spec.metric_name };
            let metrics = scaler.get_metrics(request).await?.into_inner();
            let value = metrics.metric_values.first().ok_or_else(|| Status::internal("no metric value"))?;
            let active = scaler.is_active(object.clone()).await?.into_inner().result;
            Ok(Observation { active, value: value.metric_value_float, target })
        };
        answered(&self.pool, observation).await.ok_or(CallFailure::Metrics { target })
    }

    fn follow(&mut self, wanted: u32, answer: Option<Observation>) {
        let before = self.fleet.size();
        if before != wanted {
            let why = answer.map_or_else(
                || "pushed".to_owned(),
                |observed| format!("backlog {}, {} per worker", observed.value, observed.target),
            );
            print_line(format_args!("pool {}: {before} → {wanted} workers ({why})", self.pool));
            self.fleet.resize(wanted);
        }
    }
}

/// The answer of a call; `None`, and a log line, if the scaler refused or did not answer in time.
async fn answered<T>(pool: &str, call: impl Future<Output = Result<T, Status>>) -> Option<T> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(status)) => tracing::warn!(pool, %status, "the scaler refused the call"),
        Err(_) => tracing::warn!(pool, timeout_seconds = CALL_TIMEOUT.as_secs(), "the scaler did not answer in time"),
    }
    None
}

/// The next message of the push stream. A stream that ends is opened again.
async fn next_push(
    stream: &mut Option<Streaming<proto::externalscaler::IsActiveResponse>>,
    scaler: &mut ExternalScalerClient<Channel>,
    object: &ScaledObjectRef,
) -> bool {
    loop {
        match stream {
            Some(open) => match open.next().await {
                Some(Ok(message)) => return message.result,
                Some(Err(_)) | None => {
                    *stream = None;
                    sleep(REOPEN_AFTER).await;
                }
            },
            None => match scaler.stream_is_active(object.clone()).await {
                Ok(opened) => *stream = Some(opened.into_inner()),
                // The polls report the error. The stream only makes the first worker start sooner.
                Err(_) => sleep(REOPEN_AFTER).await,
            },
        }
    }
}
