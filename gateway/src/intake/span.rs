//! The span of a publication, by the semantic conventions for messaging of OpenTelemetry. `docs/tracing.md` lists all
//! spans.

use queue::Job;
use service::trace::{self, WholeSpan};
use tracing::{Span, trace_span};

/// The record and the publication of a job, within the trace that the job belongs to. From then on the job belongs to this
/// span.
pub(super) fn publish(job: &mut Job) -> WholeSpan {
    if !trace::may_be_recorded(job.trace_parent.as_deref()) {
        return WholeSpan::new(Span::none());
    }
    let span = trace_span!(
        target: trace::TARGET,
        parent: None,
        "job",
        otel.name = format!("publish {}", job.pool),
        otel.kind = "producer",
        messaging.system = "millrace",
        messaging.operation.name = "publish",
        "messaging.operation.type" = "send",
        messaging.destination.name = job.pool.as_str(),
        messaging.message.id = job.id.as_str(),
        job = job.id.as_str(),
        pool = job.pool.as_str(),
    );
    if let Some(trace_parent) = &job.trace_parent {
        trace::set_parent(&span, trace_parent);
    }
    if let Some(trace_parent) = trace::context(&span) {
        job.trace_parent = Some(trace_parent);
    }
    WholeSpan::new(trace::recorded(span))
}
