//! The faults of a manifest, reported all at once.

use std::fmt::{self, Display};
use std::path::PathBuf;

/// A manifest that cannot be used: its file and all its faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The wrong file or folder.
    pub file: PathBuf,
    /// At least one fault. The fault of a key names the key, the value and the rule.
    pub faults: Vec<String>,
}

impl ManifestError {
    /// An error with a single fault.
    pub fn new(file: impl Into<PathBuf>, fault: impl Display) -> Self {
        Self { file: file.into(), faults: vec![fault.to_string()] }
    }
}

impl Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{}: {fault}", self.file.display())?;
        }
        Ok(())
    }
}

/// Collects the faults of one manifest.
pub(super) struct Faults {
    file: PathBuf,
    faults: Vec<String>,
}

impl Faults {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, faults: Vec::new() }
    }

    /// Records a fault unless `holds`: the `value` of `key` breaks `rule`.
    pub(super) fn unless(&mut self, holds: bool, key: &str, value: impl Display, rule: &str) {
        if !holds {
            self.add(key, format_args!("{value} is not {rule}"));
        }
    }

    /// Records a fault of `key`.
    pub(super) fn add(&mut self, key: &str, fault: impl Display) {
        self.faults.push(format!("{key}: {fault}"));
    }

    /// The error of a manifest that cannot be read at all.
    pub(super) fn only(self, fault: impl Display) -> ManifestError {
        ManifestError::new(self.file, fault)
    }

    pub(super) fn into_result(self) -> Result<(), ManifestError> {
        if self.faults.is_empty() { Ok(()) } else { Err(ManifestError { file: self.file, faults: self.faults }) }
    }
}
