//! `Prefer: wait=10` (RFC 7240): how long a client would wait for the result instead of a 202.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};

/// The first `wait` in seconds. As the RFC demands, preferences that are unknown or malformed are passed over.
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter();
    let preferences = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut waits = preferences.filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let named = name.trim().eq_ignore_ascii_case("wait");
        named.then(|| value.trim().trim_matches('"').parse().ok()).flatten()
    });
    waits.next().map(Duration::from_secs)
}

/// Says that the preference was heeded, and how long was waited at most.
pub(crate) fn applied(headers: &mut HeaderMap, wait: Duration) {
    if let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) {
        headers.insert("preference-applied", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        assert_eq!(of(&["wait=10"]), Some(10));
        assert_eq!(of(&["respond-async, wait=10"]), Some(10));
        assert_eq!(of(&["respond-async", "Wait = \"3\" ; x=1"]), Some(3));
        assert_eq!(of(&["wait=1, wait=2"]), Some(1));
    }

    #[test]
    fn what_is_not_a_wait_is_passed_over() {
        for value in ["wait", "wait=", "wait=soon", "wait=-1", "waiting=3", "", ",;="] {
            assert_eq!(of(&[value]), None, "{value}");
        }
    }
}
