//! Spans that belong to a trace across processes (W3C Trace Context, OpenTelemetry).
//!
//! A span of a trace is a span of `tracing` whose target is [`TARGET`]. It exists only if traces are exported, see
//! [`TracingSettings`](crate::telemetry::TracingSettings). Otherwise it is disabled and costs nothing, and every function
//! here returns at once.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, Status, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::{Level, Span, span_enabled};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of the spans of traces.
pub const TARGET: &str = "millrace::trace";

/// The header and the attribute that carry the context of a trace.
const TRACE_PARENT: &str = "traceparent";

/// Whether a span may be recorded whose parent is `trace_parent`. Without a parent, the span itself is sampled.
pub fn may_be_recorded(trace_parent: Option<&str>) -> bool {
    span_enabled!(target: TARGET, Level::TRACE) && trace_parent.is_none_or(is_sampled)
}

fn is_sampled(trace_parent: &str) -> bool {
    let flags = trace_parent.split('-').nth(3).and_then(|flags| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & 1 == 1)
}

/// The share of new traces that are recorded. If it is not set, the sampler of the exporter decides.
static SHARE: OnceLock<f64> = OnceLock::new();

/// Sets the share of new traces that are recorded, for the whole process.
pub(crate) fn record_share(share: f64) {
    // An error means that another exporter has set it.
    let _ = SHARE.set(share);
}

/// Decides whether the trace of a job or request without one is recorded. Returns the context of one that is not.
///
/// A span that is sampled out costs nearly as much as one that is recorded, so the decision comes before the first span.
/// The context says to all later processes that they must not record the job either.
pub fn unrecorded() -> Option<String> {
    if !may_be_recorded(None) {
        return None;
    }
    let ids = RandomIdGenerator::default();
    let trace_id = ids.new_trace_id();
    let [.., a, b, c, d, e, f, g, h] = trace_id.to_bytes();
    let is_recorded = SHARE.get().is_none_or(|share| is_within(*share, u64::from_be_bytes([a, b, c, d, e, f, g, h])));
    (!is_recorded).then(|| format!("00-{trace_id}-{}-00", ids.new_span_id()))
}

/// Whether a random number falls into this share of all numbers.
fn is_within(share: f64, random: u64) -> bool {
    (random >> 11) as f64 / ((1_u64 << 53) as f64) < share
}

/// Makes a new span part of the trace of `trace_parent`. A malformed one is ignored. Must come before any other use of the
/// span.
pub fn set_parent(span: &Span, trace_parent: &str) {
    if span.is_disabled() {
        return;
    }
    let carrier = HashMap::from([(TRACE_PARENT.to_owned(), trace_parent.to_owned())]);
    // An error means that no layer exports the span.
    let _ = span.set_parent(TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier));
}

/// The trace context for the children of a span, in other processes too. `None`: the span is not part of a trace.
pub fn context(span: &Span) -> Option<String> {
    let context = context_of(span)?;
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Context::new().with_remote_span_context(context), &mut carrier);
    carrier.remove(TRACE_PARENT)
}

/// The span if it is recorded, and otherwise a disabled one.
pub fn recorded(span: Span) -> Span {
    if context_of(&span).is_some_and(|context| context.is_sampled()) { span } else { Span::none() }
}

/// Links a span to another one, which is not its parent.
pub fn link(span: &Span, to: &Span) {
    if let Some(to) = context_of(to) {
        span.add_link(to);
    }
}

/// Adds an event to a span.
pub fn event(span: &Span, name: &'static str) {
    if !span.is_disabled() {
        span.add_event(name, Vec::new());
    }
}

/// Records that the work of a span failed, with an error of this type.
pub fn failed(span: &Span, kind: &str, message: &dyn fmt::Display) {
    if !span.is_disabled() {
        span.set_attribute("error.type", kind.to_owned());
        span.set_status(Status::error(message.to_string()));
    }
}

fn context_of(span: &Span) -> Option<SpanContext> {
    if span.is_disabled() {
        return None;
    }
    Some(span.context().span().span_context().clone()).filter(SpanContext::is_valid)
}

/// A span that ends when it is dropped. A plain one ends when code last ran within it.
#[derive(Debug)]
pub struct WholeSpan(Span);

impl WholeSpan {
    /// Ends `span` when the value is dropped.
    pub fn new(span: Span) -> Self {
        Self(span)
    }
}

impl Deref for WholeSpan {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.0
    }
}

impl Drop for WholeSpan {
    fn drop(&mut self) {
        self.0.in_scope(|| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_a_trace_parent_decide() {
        let parent = |flags: &str| format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        assert!(is_sampled(&parent("01")) && is_sampled(&parent("03")));
        for unsampled in ["00", "02", "zz", "", "\u{e9}"] {
            assert!(!is_sampled(&parent(unsampled)), "{unsampled}");
        }
        assert!(!is_sampled(""));
    }

    #[test]
    fn a_share_contains_as_many_numbers() {
        assert!(is_within(1.0, u64::MAX) && !is_within(0.0, 0));
        let numbers = (0..1000_u64).map(|number| number * (u64::MAX / 1000));
        assert_eq!(numbers.filter(|number| is_within(0.25, *number)).count(), 251);
    }

    #[test]
    fn without_an_export_a_span_has_no_context() {
        let span = tracing::trace_span!(target: TARGET, "work");
        set_parent(&span, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(context(&span), None);
        assert!(recorded(span).is_disabled());
    }
}
