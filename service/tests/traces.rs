//! Traces, as a collector receives them. One test, because a process has one export.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use millrace_service::telemetry::{TelemetrySettings, TracingSettings};
use millrace_service::{Telemetry, trace};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing::trace_span;

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_with_their_parents_and_links_until_the_process_ends() {
    let (received, mut requests) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(received)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let tracing = TracingSettings { endpoint, ..TracingSettings::default() };
    Telemetry::start(&TelemetrySettings { tracing, ..TelemetrySettings::default() }, "tested").unwrap();

    {
        let parent = trace_span!(target: trace::TARGET, "parent", otel.kind = "consumer", job = "1");
        trace::set_parent(&parent, &format!("{PARENT}-01"));
        let parent = trace::WholeSpan::new(trace::recorded(parent));
        let child = trace_span!(target: trace::TARGET, parent: &*parent, "child");
        trace::event(&child, "expired");
        trace::failed(&child, "model_error", &"a message");
        let linked = trace_span!(target: trace::TARGET, parent: None, "linked");
        trace::link(&linked, &parent);
        child.in_scope(|| tracing::warn!("a warning"));
        child.in_scope(|| tracing::info!("no event of the span"));

        let unsampled = trace_span!(target: trace::TARGET, "unsampled");
        trace::set_parent(&unsampled, &format!("{PARENT}-00"));
        let context = trace::context(&unsampled).unwrap();
        assert!(context.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && context.ends_with("-00"), "{context}");
        assert!(trace::recorded(unsampled).is_disabled());
        // A span of another target is not exported.
        drop(trace_span!("inner").entered());
    }
    std::thread::spawn(Telemetry::shutdown).join().unwrap();

    let request = timeout(Duration::from_secs(60), requests.recv()).await.unwrap().unwrap();
    let [resource] = &request.resource_spans[..] else { panic!("{request:?}") };
    let name = resource.resource.as_ref().unwrap().attributes.iter().find(|one| one.key == "service.name").unwrap();
    assert!(format!("{name:?}").contains("\"tested\""), "{name:?}");
    let spans: Vec<&Span> = resource.scope_spans.iter().flat_map(|scope| &scope.spans).collect();
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["child", "linked", "parent"]);
    let named = |name: &str| *spans.iter().find(|span| span.name == name).unwrap();
    let (parent, child, linked) = (named("parent"), named("child"), named("linked"));
    assert_eq!(parent.kind, SpanKind::Consumer as i32);
    assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(parent.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!((&child.trace_id, &child.parent_span_id), (&parent.trace_id, &parent.span_id));
    let events: Vec<&str> = child.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(events, ["expired", "a warning"]);
    assert_eq!(child.status.as_ref().unwrap().message, "a message");
    assert!(linked.trace_id != parent.trace_id && linked.parent_span_id.is_empty());
    assert_eq!(linked.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&parent.span_id]);
    assert!(parent.end_time_unix_nano >= child.end_time_unix_nano);
}
