//! The export of traces to a collector, by OTLP.

use std::env;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

use crate::trace;

use super::settings::{COLLECTOR_RULE, TracingProtocol, TracingSettings, is_collector};

/// The path of traces at a collector that speaks HTTP.
const PATH: &str = "v1/traces";

/// The longest time of one export. The process waits about as long at its end.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most links of a span: a batch has one for each of its jobs.
const MOST_LINKS: u32 = 1024;

/// The tracer of the process, which exports its spans at the end of the process.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The reason why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct TracingError {
    key: String,
    message: String,
}

impl TracingError {
    fn new(key: &str, message: impl fmt::Display) -> Self {
        Self { key: key.to_owned(), message: message.to_string() }
    }
}

/// A collector to which traces are exported.
#[derive(Debug, PartialEq)]
struct Collector {
    /// The setting or the environment variable that names it.
    key: &'static str,
    url: String,
    protocol: TracingProtocol,
}

impl Collector {
    /// The collector that the environment or the settings name. `None`: there is none, so nothing is traced.
    fn of(settings: &TracingSettings, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TracingError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let of_traces = set(ENDPOINT_OF_TRACES).map(|url| (ENDPOINT_OF_TRACES, url, true));
        let found = of_traces
            .or_else(|| set(ENDPOINT).map(|url| (ENDPOINT, url, false)))
            .or_else(|| settings.endpoint.clone().map(|url| ("telemetry.tracing.endpoint", url, false)));
        let Some((key, url, is_complete)) = found.filter(|_| !is_off) else { return Ok(None) };
        if !is_collector(&url) {
            return Err(TracingError::new(key, format_args!("{url:?} {COLLECTOR_RULE}")));
        }
        let named = PROTOCOLS.into_iter().find_map(|name| set(name).map(|value| (name, value)));
        let protocol = match named.as_ref().map(|(name, value)| (*name, value.as_str())) {
            None => settings.protocol,
            Some((_, "grpc")) => TracingProtocol::Grpc,
            Some((_, "http/protobuf")) => TracingProtocol::Http,
            Some((name, value)) => {
                return Err(TracingError::new(name, format_args!("{value:?} is not grpc or http/protobuf")));
            }
        };
        let url = match protocol {
            TracingProtocol::Http if !is_complete => format!("{}/{PATH}", url.trim_end_matches('/')),
            _ => url,
        };
        Ok(Some(Self { key, url, protocol }))
    }

    /// Builds the exporter. Does not wait for the collector.
    fn exporter(&self) -> Result<Otlp, TracingError> {
        let built = match self.protocol {
            TracingProtocol::Grpc => {
                let exporter = Otlp::builder().with_tonic().with_endpoint(&self.url).with_timeout(EXPORT_TIMEOUT);
                let is_tls = self.url.starts_with("https:");
                let tls = || ClientTlsConfig::new().with_native_roots();
                if is_tls { exporter.with_tls_config(tls()).build() } else { exporter.build() }
            }
            TracingProtocol::Http => {
                let client = OnRuntime { client: self.http_client()?, runtime: Handle::current() };
                let exporter = Otlp::builder().with_http().with_endpoint(&self.url).with_timeout(EXPORT_TIMEOUT);
                exporter.with_http_client(client).build()
            }
        };
        built.map_err(|error| TracingError::new(self.key, error))
    }

    fn http_client(&self) -> Result<Client, TracingError> {
        let mut roots = RootCertStore::empty();
        // A collector without TLS needs none.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| TracingError::new(self.key, error))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Ok(HyperClient::new(connector, EXPORT_TIMEOUT, None))
    }
}

const ENDPOINT_OF_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

type Client = HyperClient<hyper_rustls::HttpsConnector<HttpConnector>>;

/// A client that works on the runtime of the process, because the thread that exports is outside it.
#[derive(Debug)]
struct OnRuntime {
    client: Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}

/// Logs when the export begins to fail and when it works again, not every failure.
#[derive(Debug)]
struct Logged<E> {
    exporter: E,
    url: String,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Logged<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(exported.is_err(), Ordering::Relaxed);
        match &exported {
            Err(error) if !was_failing => {
                tracing::warn!(%error, collector = self.url, "cannot export traces; their spans are lost");
            }
            Ok(()) if was_failing => tracing::info!(collector = self.url, "traces are exported again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The tracer that exports the spans of `service`. `None`: no collector is configured. Must be called within a Tokio
/// runtime if there is a collector.
pub(super) fn provider(
    settings: &TracingSettings,
    service: &'static str,
) -> Result<Option<SdkTracerProvider>, TracingError> {
    let variable = |name: &str| env::var(name).ok();
    let Some(collector) = Collector::of(settings, variable)? else { return Ok(None) };
    let exporter = collector.exporter()?;
    let exporter = Logged { exporter, url: collector.url, is_failing: AtomicBool::new(false) };
    let mut builder = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(service));
    if variable("OTEL_SPAN_LINK_COUNT_LIMIT").is_none() {
        builder = builder.with_max_links_per_span(MOST_LINKS);
    }
    // Otherwise the crate reads the sampler from this variable.
    if variable("OTEL_TRACES_SAMPLER").is_none() {
        // The share of new traces is decided before their first span.
        trace::record_share(settings.sample_ratio);
        builder = builder.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
    }
    Ok(Some(PROVIDER.get_or_init(|| builder.build()).clone()))
}

/// The process as the collector sees it. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` override its name.
fn resource(service: &'static str) -> Resource {
    let resource = Resource::builder().build();
    let name = resource.get(&"service.name".into()).map(|name| name.to_string()).unwrap_or_default();
    // The crate names a process without a name `unknown_service`.
    if name.is_empty() || name.starts_with("unknown_service") {
        return Resource::builder().with_service_name(service).build();
    }
    resource
}

/// Exports the spans that have ended, and ends the export. Blocks for a few seconds at most. Must not be called on a
/// worker thread of the runtime.
pub(super) fn shutdown() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(EXPORT_TIMEOUT)
    {
        tracing::warn!(%error, "the last spans of this process may be lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(
        settings: &TracingSettings,
        variables: &[(&str, &str)],
    ) -> Result<Option<(String, TracingProtocol)>, String> {
        let variable =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        let collector = Collector::of(settings, variable).map_err(|error| error.to_string())?;
        Ok(collector.map(|collector| (collector.url, collector.protocol)))
    }

    #[test]
    fn variables_of_opentelemetry_override_the_settings() {
        use TracingProtocol::{Grpc, Http};
        let off = TracingSettings::default();
        let endpoint = Some("http://of-settings:4318/".to_owned());
        let on = TracingSettings { endpoint, protocol: Http, ..TracingSettings::default() };
        let of = |url: &str, protocol| Ok(Some((url.to_owned(), protocol)));
        assert_eq!(collector(&off, &[]), Ok(None));
        assert_eq!(collector(&off, &[(ENDPOINT, " ")]), Ok(None));
        assert_eq!(collector(&on, &[]), of("http://of-settings:4318/v1/traces", Http));
        assert_eq!(collector(&on, &[("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(collector(&on, &[("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(collector(&on, &[(PROTOCOLS[1], "grpc")]), of("http://of-settings:4318/", Grpc));
        assert_eq!(collector(&off, &[(ENDPOINT, "http://a:1")]), of("http://a:1", Grpc));
        assert_eq!(collector(&on, &[(ENDPOINT, "http://a:1/otlp")]), of("http://a:1/otlp/v1/traces", Http));
        // The endpoint for traces is used as it is.
        let both = [(ENDPOINT, "http://a:1"), (ENDPOINT_OF_TRACES, "http://b:2/custom"), (PROTOCOLS[1], "grpc")];
        assert_eq!(collector(&on, &both), of("http://b:2/custom", Grpc));
        assert_eq!(collector(&on, &[both[1]]), of("http://b:2/custom", Http));
    }

    #[test]
    fn an_invalid_variable_is_an_error_that_names_it() {
        let on = TracingSettings { endpoint: Some("http://a:1".to_owned()), ..TracingSettings::default() };
        for (name, value) in
            [(ENDPOINT, "collector:4317"), (ENDPOINT_OF_TRACES, "ftp://a"), (PROTOCOLS[0], "http/json")]
        {
            let error = collector(&on, &[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}: {value:?} is not ")), "{error}");
        }
    }
}
