//! Log lines in JSON that name their trace.

use std::fmt;

use opentelemetry::trace::TraceContextExt;
use tracing::{Event, Subscriber, dispatcher};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Adds `trace_id` and `span_id` to a line that is logged within a recorded span.
pub(super) struct WithTrace(pub(super) Format<Json>);

impl<S, N> FormatEvent<S, N> for WithTrace
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let span = context.parent_span().map(|span| span.id());
        let trace = span.and_then(|id| dispatcher::get_default(|dispatch| get_otel_context(&id, dispatch)));
        let Some(trace) = trace.filter(|trace| trace.span().span_context().is_valid()) else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let Some(members) = line.trim_end().strip_suffix('}') else { return writer.write_str(&line) };
        let span = trace.span();
        let (trace_id, span_id) = (span.span_context().trace_id(), span.span_context().span_id());
        writeln!(writer, r#"{members},"trace_id":"{trace_id}","span_id":"{span_id}"}}"#)
    }
}
