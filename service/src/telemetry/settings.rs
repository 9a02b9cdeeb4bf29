//! The settings of logs and traces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use url::Url;

use crate::Faults;

/// The log. The environment variable `RUST_LOG` overrides `level`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// The lowest level that is logged: `error`, `warn`, `info`, `debug` or `trace`, or levels by module:
    /// `info,queue=debug`.
    pub level: String,
    /// The form of a log line.
    pub format: LogFormat,
    /// Traces of jobs.
    pub tracing: TracingSettings,
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

/// Traces of jobs, exported by OpenTelemetry. Without an endpoint there are none. Environment variables of OpenTelemetry,
/// such as `OTEL_EXPORTER_OTLP_ENDPOINT`, override these keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TracingSettings {
    /// The URL of the collector: `http://HOST:4317` for gRPC, `http://HOST:4318` for HTTP, `https://` for TLS.
    pub endpoint: Option<String>,
    /// The protocol of the collector.
    pub protocol: TracingProtocol,
    /// The share of the new traces that is recorded. A request of a trace that began elsewhere follows the decision made
    /// there.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
}

/// The protocol of a collector of traces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TracingProtocol {
    /// OTLP over gRPC.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP.
    #[serde(rename = "http/protobuf")]
    Http,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text, tracing: TracingSettings::default() }
    }
}

impl Default for TracingSettings {
    fn default() -> Self {
        Self { endpoint: None, protocol: TracingProtocol::Grpc, sample_ratio: 1.0 }
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
        if let Some(endpoint) = self.tracing.endpoint.as_deref().filter(|endpoint| !is_collector(endpoint)) {
            let key = format_args!("{key}.tracing.endpoint");
            faults.refuse(key, format_args!("{endpoint:?}"), COLLECTOR_RULE);
        }
    }
}

/// The rule for the URL of a collector.
pub(super) const COLLECTOR_RULE: &str = "is not a URL such as http://collector:4317 or https://collector:4318";

/// Whether a text is the URL of a collector.
pub(super) fn is_collector(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_level_is_a_fault() {
        for (level, good) in [("info", true), ("warn,queue=debug", true), ("queue=loud", false), ("=,=", false)] {
            let mut faults = Faults::default();
            let settings = TelemetrySettings { level: level.to_owned(), ..TelemetrySettings::default() };
            settings.check("log", &mut faults);
            assert_eq!(faults.is_empty(), good, "{level}: {faults}");
        }
    }

    #[test]
    fn an_endpoint_that_is_not_a_url_of_http_is_a_fault() {
        for (endpoint, good) in [
            ("http://collector:4317", true),
            ("https://collector.example/otlp", true),
            ("collector:4317", false),
            ("grpc://collector:4317", false),
            ("http://", false),
            ("", false),
        ] {
            let mut faults = Faults::default();
            let tracing = TracingSettings { endpoint: Some(endpoint.to_owned()), ..TracingSettings::default() };
            TelemetrySettings { tracing, ..TelemetrySettings::default() }.check("telemetry", &mut faults);
            assert_eq!(faults.is_empty(), good, "{endpoint}: {faults}");
            assert!(good || faults.to_string().starts_with("telemetry.tracing.endpoint: "), "{faults}");
        }
    }
}
