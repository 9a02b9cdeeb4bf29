//! Traces that are not recorded. The settings of a process hold for all its tests, so this one has a process of its own.

use millrace_service::telemetry::{TelemetrySettings, TracingSettings};
use millrace_service::{Telemetry, trace};

#[tokio::test]
async fn a_trace_that_is_not_recorded_has_a_context_of_its_own_and_no_span() {
    let endpoint = Some("http://127.0.0.1:1".to_owned());
    let tracing = TracingSettings { endpoint, sample_ratio: 0.0, ..TracingSettings::default() };
    Telemetry::start(&TelemetrySettings { tracing, ..TelemetrySettings::default() }, "tested").unwrap();
    assert!(trace::may_be_recorded(None));
    let (first, second) = (trace::unrecorded().unwrap(), trace::unrecorded().unwrap());
    assert_ne!(first, second);
    for context in [first, second] {
        assert!(context.starts_with("00-") && context.len() == 55, "{context}");
        assert!(!trace::may_be_recorded(Some(&context)), "{context}");
    }
}
