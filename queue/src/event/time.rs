//! The times of an event.

use jiff::Timestamp;

use super::{Unreadable, read as read_text};

/// Reads a time. A time beyond the range of [`Timestamp`] becomes the first or the last one of it. Such times mean
/// "never" or "always"; .NET's last one is `9999-12-31T23:59:59Z`.
pub(super) fn read(name: &str, text: &str) -> Result<Timestamp, Unreadable> {
    out_of_range(text).map_or_else(|| read_text(name, text, "an RFC 3339 time"), Ok)
}

/// The nearest time, if the text is a time that is out of range.
fn out_of_range(text: &str) -> Option<Timestamp> {
    if text.parse::<Timestamp>().is_ok() {
        return None;
    }
    let is_negative = text.starts_with('-');
    let (year, rest) = text.trim_start_matches(['+', '-']).split_once('-')?;
    let digits = year.trim_start_matches('0');
    let is_far = year.bytes().all(|byte| byte.is_ascii_digit()) && (digits.len() > 4 || digits == "9999");
    // Apart from its year, the text must be a time.
    let is_time = is_far && format!("2000-{rest}").parse::<Timestamp>().is_ok();
    is_time.then_some(if is_negative { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_of_range_is_the_nearest_one() {
        for (text, time) in [
            ("9999-12-31T23:59:59Z", Timestamp::MAX),
            ("+1000000-01-01T00:00:00Z", Timestamp::MAX),
            ("-1000000-01-01T00:00:00+01:00", Timestamp::MIN),
            ("1970-01-01T00:00:00Z", Timestamp::UNIX_EPOCH),
        ] {
            assert_eq!(read("time", text), Ok(time), "{text}");
        }
        for text in ["9999-13-31T23:59:59Z", "99999", "-", "+12345-soon", "2000-02-30T00:00:00Z"] {
            assert!(read("time", text).is_err(), "{text}");
        }
    }
}
