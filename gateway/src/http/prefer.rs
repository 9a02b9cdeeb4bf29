//! `Prefer: wait=10` (RFC 7240): the client prefers to wait up to 10 s for the result, instead of a 202 at once.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};

/// The first valid `wait`. The RFC demands that unknown and malformed preferences are ignored.
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter();
    let preferences = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut waits = preferences.filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| value.trim().trim_matches('"').parse().ok()).flatten()
    });
    waits.next().map(Duration::from_secs)
}

/// Adds the header that confirms the preference, with the longest wait that was applied.
pub(crate) fn applied(headers: &mut HeaderMap, wait: Duration) {
    if let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) {
        headers.insert("preference-applied", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_seconds(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        assert_eq!(wait_seconds(&["wait=10"]), Some(10));
        assert_eq!(wait_seconds(&["respond-async, wait=10"]), Some(10));
        assert_eq!(wait_seconds(&["respond-async", "Wait = \"3\" ; x=1"]), Some(3));
        assert_eq!(wait_seconds(&["wait=1, wait=2"]), Some(1));
    }

    #[test]
    fn other_and_malformed_preferences_are_ignored() {
        for value in ["wait", "wait=", "wait=soon", "wait=-1", "waiting=3", "", ",;="] {
            assert_eq!(wait_seconds(&[value]), None, "{value}");
        }
    }
}
