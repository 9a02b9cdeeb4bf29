//! The faults of a configuration.

use std::fmt;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, as `pools.resnet50.batch.max_items`.
    pub key: String,
    /// The broken rule, with the value: `0 is not at least 1`.
    pub message: String,
}

/// All faults; `Display` prints one per line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds `key: message`. A fault that is there already is not added again.
    pub fn add(&mut self, key: impl fmt::Display, message: impl fmt::Display) {
        let fault = Fault { key: key.to_string(), message: message.to_string() };
        if !self.0.contains(&fault) {
            self.0.push(fault);
        }
    }

    /// Adds `key: value rule`, as in `batch.max_items: 0 is not at least 1`.
    pub fn refuse(&mut self, key: impl fmt::Display, value: impl fmt::Display, rule: impl fmt::Display) {
        self.add(key, format_args!("{value} {rule}"));
    }

    /// Whether there is no fault.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// `value` if there is no fault.
    pub fn none_or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
