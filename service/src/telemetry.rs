//! Logs on standard error, metrics, and traces.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::trace;

mod export;
mod json;
mod settings;

pub use export::TracingError;
pub use settings::{LogFormat, TelemetrySettings, TracingProtocol, TracingSettings};

/// Running telemetry.
#[derive(Debug, Clone)]
pub struct Telemetry {
    metrics: PrometheusHandle,
}

impl Telemetry {
    /// Starts logging and metrics for the whole process, and traces if there is a collector for them. `service` is the name
    /// of the process in its traces.
    ///
    /// A process has one log and one set of metrics. A second start, as in a test with several services, changes nothing.
    pub fn start(settings: &TelemetrySettings, service: &'static str) -> Result<Self, TracingError> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(&settings.level));
        // An error means that there is a subscriber already.
        let _already = match export::provider(&settings.tracing, service)? {
            None => tracing_subscriber::registry().with(filter).with(log(settings.format)).try_init(),
            Some(provider) => {
                let layer = tracing_opentelemetry::layer()
                    .with_tracer(provider.tracer("millrace"))
                    .with_context_activation(false)
                    .with_tracked_inactivity(false)
                    .with_location(false)
                    .with_threads(false)
                    .with_target(false);
                // A warning within a span is an event of the span.
                let exported = filter_fn(|metadata| {
                    metadata.target() == trace::TARGET || metadata.is_event() && *metadata.level() <= Level::WARN
                });
                let is_json = settings.format == LogFormat::Json;
                let named =
                    filter_fn(move |metadata| is_json && metadata.is_span() && metadata.target() == trace::TARGET);
                let log = log(settings.format).with_filter(filter.or(named));
                tracing_subscriber::registry().with(layer.with_filter(exported)).with(log).try_init()
            }
        };
        Ok(Self { metrics: metrics() })
    }

    /// Exports the spans that have ended, and ends the export. Blocks for a few seconds at most, so it must not be called
    /// on a worker thread of the runtime.
    pub fn shutdown() {
        export::shutdown();
    }

    /// All metrics of the process, in the Prometheus text format.
    pub fn render(&self) -> String {
        self.metrics.render()
    }
}

/// The filter of the setting `level`.
///
/// The RabbitMQ client logs each refused call as an error, and the driver receives the same error as a value. It is expected
/// where a queue does not exist yet: the scaler would log such errors all the time. A level that names `lapin` shows them.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("lapin=off,{level}"))
}

/// The layer that writes log lines.
fn log<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).map_event_format(json::WithTrace).boxed(),
    }
}

/// The buckets of durations, from a fast local call to a cold start.
const SECONDS: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    120.0,
];

/// The name that the clients of Prometheus use. It changes with each restart.
const START_TIME: &str = "process_start_time_seconds";

/// The buckets of batch sizes.
const ITEMS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// The interval at which recorded values are aggregated into buckets. Until then they use memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of the process. The first call installs the recorder.
pub(crate) fn metrics() -> PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(install).clone()
}

fn install() -> PrometheusHandle {
    // Both calls fail only for an empty list.
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_items".to_owned()), &ITEMS))
        .unwrap_or_default();
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // An error means that there is another recorder. Then its owner serves the metrics.
    if metrics::set_global_recorder(recorder).is_ok() {
        metrics::describe_gauge!(START_TIME, metrics::Unit::Seconds, "start of the process, as a Unix time");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics::gauge!(START_TIME).set(now.as_secs_f64());
        let recorded = handle.clone();
        let upkeep = move || {
            loop {
                std::thread::park_timeout(UPKEEP);
                recorded.run_upkeep();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(upkeep) {
            tracing::warn!(%error, "cannot start the thread that aggregates metrics; they use memory until they are read");
        }
    }
    handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_rabbitmq_client_are_logged_on_request() {
        let logged = |level: &str| {
            let subscriber = tracing_subscriber::registry().with(filter(level));
            tracing::subscriber::with_default(subscriber, || {
                (
                    tracing::enabled!(target: "lapin::channel", Level::ERROR),
                    tracing::enabled!(target: "millrace_queue_rabbitmq", Level::INFO),
                )
            })
        };
        assert_eq!(logged("info"), (false, true));
        assert_eq!(logged("info,lapin=error"), (true, true));
        assert_eq!(logged("error,lapin::channel=debug"), (true, false));
    }

    #[test]
    fn telemetry_may_be_started_twice_in_one_process() {
        let first = Telemetry::start(&TelemetrySettings::default(), "test").unwrap();
        let settings =
            TelemetrySettings { level: "debug".to_owned(), format: LogFormat::Json, ..TelemetrySettings::default() };
        let second = Telemetry::start(&settings, "test").unwrap();
        metrics::counter!("telemetry_test_total").increment(2);
        assert!(first.render().contains("telemetry_test_total 2"));
        assert!(second.render().contains("telemetry_test_total 2"));
    }
}
