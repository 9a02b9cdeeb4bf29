//! A collector that keeps the spans which processes under test export.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A running collector.
#[derive(Clone, Default)]
pub(super) struct Collector {
    pub(super) url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.spans.lock().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self { url, ..Self::default() };
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        collector
    }

    /// The spans so far.
    pub(super) fn spans(&self) -> Spans {
        Spans(self.spans.lock().clone())
    }
}

/// Exported spans.
#[derive(Debug)]
pub(super) struct Spans(pub(super) Vec<Span>);

impl Spans {
    /// The spans of one trace.
    pub(super) fn of_trace(&self, trace_id: &[u8]) -> Self {
        Self(self.0.iter().filter(|span| span.trace_id == trace_id).cloned().collect())
    }

    /// The spans of this name, the first that began first.
    pub(super) fn named(&self, name: &str) -> Vec<&Span> {
        let mut named: Vec<_> = self.0.iter().filter(|span| span.name == name).collect();
        named.sort_by_key(|span| span.start_time_unix_nano);
        named
    }

    /// The only span of this name.
    pub(super) fn one(&self, name: &str) -> &Span {
        let named = self.named(name);
        assert_eq!(named.len(), 1, "{name}: {self:#?}");
        named[0]
    }

    /// The names of all spans, sorted.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.iter().map(|span| span.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Checks that the parent and the links of every span were exported too. `outside` is the id of a span of a client.
    pub(super) fn assert_whole(&self, outside: &[u8]) {
        let by_id: HashMap<&[u8], &Span> = self.0.iter().map(|span| (&span.span_id[..], span)).collect();
        assert_eq!(by_id.len(), self.0.len(), "a span was exported twice: {self:#?}");
        for span in &self.0 {
            let parent = &span.parent_span_id[..];
            if !parent.is_empty() && parent != outside {
                let parent = by_id.get(parent).unwrap_or_else(|| panic!("no parent of {span:#?}"));
                assert_eq!(parent.trace_id, span.trace_id, "{span:#?}");
            }
            for link in &span.links {
                assert_eq!(
                    by_id.get(&link.span_id[..]).map(|linked| &linked.trace_id),
                    Some(&link.trace_id),
                    "{span:#?}"
                );
            }
        }
    }
}

/// The text or the number of an attribute.
pub(super) fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {span:#?}"),
    }
}

/// The names of the events of a span.
pub(super) fn events(span: &Span) -> Vec<&str> {
    span.events.iter().map(|event| event.name.as_str()).collect()
}
