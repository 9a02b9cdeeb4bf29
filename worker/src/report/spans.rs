//! The spans of a job in a worker, by the semantic conventions for messaging of OpenTelemetry. `docs/tracing.md` lists
//! them.

use queue::{Job, JobError, Lease};
use service::trace::{self, WholeSpan};
use tracing::{Span, field, trace_span};

use crate::job::ItemResult;

/// The receipt of a job, from its delivery to the answer of the ledger.
///
/// A job without a trace begins one here. If this worker records the job in the ledger, its later attempts belong to the
/// same trace.
pub(crate) fn receive(job: &mut Job) -> Span {
    if job.trace_parent.is_none() {
        job.trace_parent = trace::unrecorded();
    }
    let span = of_job("receive", "client", job);
    match &job.trace_parent {
        Some(trace_parent) => trace::set_parent(&span, trace_parent),
        None => job.trace_parent = trace::context(&span),
    }
    trace::recorded(span)
}

/// One attempt at a job, until it is settled.
pub(crate) fn process(job: &Job, lease: &Lease) -> WholeSpan {
    let span = of_job("process", "consumer", job);
    if let Some(trace_parent) = &job.trace_parent {
        trace::set_parent(&span, trace_parent);
    }
    span.record("attempt", i64::from(lease.attempt));
    WholeSpan::new(trace::recorded(span))
}

/// The write of a result and the settlement of its delivery, within `process`.
pub(crate) fn settle(job: &Job, process: &Span) -> WholeSpan {
    let span = if process.is_disabled() { Span::none() } else { process.in_scope(|| of_job("settle", "client", job)) };
    WholeSpan::new(span)
}

/// A batch. It is a child of the first job that is recorded, and linked to all of them. The others are linked to it.
pub(crate) fn infer<'s>(pool: &str, items: usize, jobs: impl Iterator<Item = &'s Span>) -> Span {
    let recorded: Vec<&Span> = jobs.filter(|job| !job.is_disabled()).collect();
    let Some((first, others)) = recorded.split_first() else { return Span::none() };
    let span = trace_span!(
        target: trace::TARGET,
        parent: *first,
        "infer",
        otel.name = format!("infer {pool}"),
        messaging.batch.message_count = i64::try_from(items).unwrap_or(i64::MAX),
        pool,
    );
    recorded.iter().for_each(|job| trace::link(&span, job));
    others.iter().for_each(|job| trace::link(job, &span));
    span
}

/// Records the first failure of a batch.
pub(crate) fn inferred(infer: &Span, results: &[ItemResult]) {
    if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
        trace::failed(infer, queue::JobErrorKind::ModelError.as_str(), error);
    }
}

/// Records why an attempt failed.
pub(crate) fn failed(process: &Span, error: &JobError) {
    trace::failed(process, &error.kind, &error.message);
}

/// Records how an attempt ended.
pub(crate) fn ended(process: &Span, outcome: &'static str) {
    process.record("outcome", outcome);
    if outcome != queue::JobState::Succeeded.as_str() {
        trace::event(process, outcome);
    }
}

/// A span of one job. It has no parent, unless code within another span creates it.
fn of_job(operation: &'static str, kind: &'static str, job: &Job) -> Span {
    if !trace::may_be_recorded(job.trace_parent.as_deref()) {
        return Span::none();
    }
    trace_span!(
        target: trace::TARGET,
        "job",
        otel.name = format!("{operation} {}", job.pool),
        otel.kind = kind,
        messaging.system = "millrace",
        messaging.operation.name = operation,
        "messaging.operation.type" = operation,
        messaging.destination.name = job.pool.as_str(),
        messaging.message.id = job.id.as_str(),
        job = job.id.as_str(),
        pool = job.pool.as_str(),
        attempt = field::Empty,
        outcome = field::Empty,
    )
}
