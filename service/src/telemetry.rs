//! Logs on standard error, and metrics.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Faults;

/// The log. The environment variable `RUST_LOG` overrides `level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// The lowest level that is logged: `error`, `warn`, `info`, `debug` or `trace`, or levels by module:
    /// `info,queue=debug`.
    pub level: String,
    /// The form of a log line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text, with colours on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl TelemetrySettings {
    /// Adds the faults of these settings; their section is `key`.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        if EnvFilter::builder().parse(&self.level).is_err() {
            faults.refuse(
                format_args!("{key}.level"),
                format_args!("{:?}", self.level),
                "is not error, warn, info, debug, trace or a list such as info,queue=debug",
            );
        }
    }
}

/// Running telemetry.
#[derive(Debug, Clone)]
pub struct Telemetry {
    metrics: PrometheusHandle,
}

impl Telemetry {
    /// Starts logging and metrics for the whole process.
    ///
    /// A process has one log and one set of metrics. A second start, as in a test with several services, changes nothing.
    pub fn start(settings: &TelemetrySettings) -> Self {
        let configured = || EnvFilter::builder().parse_lossy(&settings.level);
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| configured());
        let registry = tracing_subscriber::registry().with(filter);
        let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        // An error means that there is a subscriber already.
        let _already = match settings.format {
            LogFormat::Text => registry.with(layer.with_ansi(io::stderr().is_terminal())).try_init(),
            LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        };
        Self { metrics: metrics() }
    }

    /// All metrics of the process, in the Prometheus text format.
    pub fn render(&self) -> String {
        self.metrics.render()
    }
}

/// The buckets of durations, from a fast local call to a cold start.
const SECONDS: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    120.0,
];

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
    fn telemetry_may_be_started_twice_in_one_process() {
        let first = Telemetry::start(&TelemetrySettings::default());
        let second = Telemetry::start(&TelemetrySettings { level: "debug".to_owned(), format: LogFormat::Json });
        metrics::counter!("telemetry_test_total").increment(2);
        assert!(first.render().contains("telemetry_test_total 2"));
        assert!(second.render().contains("telemetry_test_total 2"));
    }

    #[test]
    fn an_invalid_level_is_a_fault() {
        for (level, good) in [("info", true), ("warn,queue=debug", true), ("queue=loud", false), ("=,=", false)] {
            let mut faults = Faults::default();
            let settings = TelemetrySettings { level: level.to_owned(), ..TelemetrySettings::default() };
            settings.check("log", &mut faults);
            assert_eq!(faults.is_empty(), good, "{level}: {faults}");
        }
    }
}
