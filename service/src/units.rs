//! Quantities in a configuration: `250ms`, `5s`, `1h30m`; `256KiB`, `1.5GiB`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A length of time, written `250ms`, `5s` or `1h30m`. Dereferences to [`Duration`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(Duration);

impl Period {
    const PATTERN: &str = "^([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h|d))+$";
    const RULE: &str = "is not a duration such as 250ms, 5s or 1h30m";

    /// The period of this duration.
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// A number of seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A number of milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Deref for Period {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

impl From<Duration> for Period {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        // `humantime` also accepts months and years, which have no fixed length.
        let refused = || UnitError { value: text.to_owned(), rule: Self::RULE };
        let allowed = |unit: &str| matches!(unit, "" | "ns" | "us" | "ms" | "s" | "m" | "h" | "d");
        if !text.split(|c: char| c.is_ascii_digit() || c == '.').all(allowed) {
            return Err(refused());
        }
        humantime::parse_duration(text).map(Self).map_err(|_| refused())
    }
}

impl TryFrom<String> for Period {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl fmt::Display for Period {
    /// The duration in the form that can be parsed, with the largest units: `90s` becomes `1m30s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NANOS: [(&str, u128); 7] = [
            ("d", 86_400_000_000_000),
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ];
        let mut left = self.0.as_nanos();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, nanos) in NANOS {
            if left >= nanos {
                write!(f, "{}{unit}", left / nanos)?;
                left %= nanos;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: numbers with the units ns, us, ms, s, m, h, d.",
            "type": "string",
            "pattern": Self::PATTERN,
            "examples": ["250ms", "5s", "1h30m"],
            "x-rule": Self::RULE,
        })
    }
}

/// A number of bytes, written `256KiB` (1024) or `64kB` (1000), or as a plain number. Dereferences to `u64`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    const PATTERN: &str = "^[0-9]+(\\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$";
    const RULE: &str = "is not a size such as 512B, 256KiB or 1.5GiB";
    const UNITS: [&str; 11] = ["", "B", "kB", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"];

    /// A number of bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A number of kibibytes (1024 bytes).
    pub const fn kib(kibibytes: u64) -> Self {
        Self(kibibytes * 1024)
    }

    /// A number of mebibytes (1024² bytes).
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes * 1024 * 1024)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; `usize::MAX` if it is larger than that.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Deref for ByteSize {
    type Target = u64;

    fn deref(&self) -> &u64 {
        &self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError { value: text.to_owned(), rule: Self::RULE };
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if !Self::UNITS.contains(&unit.trim_start()) {
            return Err(refused());
        }
        text.parse::<bytesize::ByteSize>().map(|size| Self(size.as_u64())).map_err(|_| refused())
    }
}

impl fmt::Display for ByteSize {
    /// The size in the largest unit that gives a whole number, so that parsing the text gives the same size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bytes) in [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes: a plain number, or one with a unit (KiB = 1024 bytes, kB = 1000 bytes).",
            "type": ["string", "integer"],
            "pattern": Self::PATTERN,
            "minimum": 0,
            "examples": ["512B", "256KiB", "1.5GiB"],
            "x-rule": Self::RULE,
        })
    }
}

/// A text that is not a quantity of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} {rule}")]
pub struct UnitError {
    value: String,
    rule: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_parsed() {
        for (text, millis) in [("0s", 0), ("250ms", 250), ("5s", 5_000), ("1h30m", 5_400_000), ("1.5s", 1_500)] {
            assert_eq!(text.parse::<Period>().unwrap().as_millis(), millis, "{text}");
        }
        for bad in ["", "5", "s", "5 parsecs", "-5s", "1month", "5M", "99999999999999999999s", "1h,30m"] {
            let error = bad.parse::<Period>().unwrap_err().to_string();
            assert_eq!(error, format!("{bad:?} is not a duration such as 250ms, 5s or 1h30m"));
        }
    }

    #[test]
    fn a_period_is_written_in_the_form_that_is_parsed() {
        for text in ["0s", "1ns", "250ms", "5s", "1m30s", "1h30m", "2d", "1s500ms"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert_eq!(serde_json::to_string(&Period::seconds(90)).unwrap(), "\"1m30s\"");
    }

    #[test]
    fn a_size_is_parsed() {
        for (text, bytes) in
            [("0", 0), ("512B", 512), ("64kB", 64_000), ("256KiB", 262_144), ("1.5 GiB", 1_610_612_736)]
        {
            assert_eq!(*text.parse::<ByteSize>().unwrap(), bytes, "{text}");
        }
        for bad in ["", "KiB", "-1", "5 apples", "1.2.3MiB", "1k"] {
            let error = bad.parse::<ByteSize>().unwrap_err().to_string();
            assert_eq!(error, format!("{bad:?} is not a size such as 512B, 256KiB or 1.5GiB"));
        }
        assert_eq!(serde_json::from_str::<ByteSize>("1024").unwrap(), ByteSize::kib(1));
        assert_eq!(serde_json::from_str::<ByteSize>("\"2MiB\"").unwrap(), ByteSize::mib(2));
    }

    #[test]
    fn a_size_is_written_in_the_form_that_is_parsed() {
        for size in [ByteSize::bytes(0), ByteSize::bytes(1023), ByteSize::kib(1), ByteSize::kib(1536), ByteSize::mib(5)]
        {
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }
        assert_eq!(ByteSize::kib(256).to_string(), "256KiB");
    }
}
