//! The trace of a request (W3C Trace Context).

use axum::http::HeaderMap;
use service::trace;
use tracing::Span;

/// The header with the context of a trace.
pub(crate) const TRACE_PARENT: &str = "traceparent";

/// The trace context of the jobs of a request. It is the span of the request, or else the `traceparent` that the client
/// sent.
pub(crate) fn context(headers: &HeaderMap) -> Option<String> {
    trace::context(&Span::current()).or_else(|| parent(headers))
}

/// The `traceparent` of a request. The recommendation demands that a malformed one is ignored.
pub(crate) fn parent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(TRACE_PARENT)?.to_str().ok()?;
    is_valid(text).then(|| text.to_owned())
}

fn is_valid(text: &str) -> bool {
    let lowercase_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut parts = text.splitn(4, '-');
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    // A later version may append fields after the flags; the fields of version 00 stay in place.
    let (flags, rest) = flags.split_at_checked(2).unwrap_or((flags, ""));
    let rest_fits = rest.is_empty() || version != "00" && rest.starts_with('-') && text.len() <= 256;
    version.len() == 2
        && version != "ff"
        && trace.len() == 32
        && !zero(trace)
        && span.len() == 16
        && !zero(span)
        && flags.len() == 2
        && [version, trace, span, flags].into_iter().all(lowercase_hex)
        && rest_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_parent_is_valid() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_valid(good));
        assert!(is_valid(&format!("{}-later", good.replacen("00", "01", 1))));
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
