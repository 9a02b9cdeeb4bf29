//! What is wrong with a manifest, all of it at once.

use std::fmt::{self, Display};
use std::path::PathBuf;

/// A manifest that cannot be used: the file, and everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The file or folder at fault.
    pub file: PathBuf,
    /// At least one sentence; where a key is at fault, with key, value and rule.
    pub faults: Vec<String>,
}

impl ManifestError {
    /// A single fault.
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

    /// Notes that `key` holds `value`, which is not what `rule` asks for, unless it `holds`.
    pub(super) fn unless(&mut self, holds: bool, key: &str, value: impl Display, rule: &str) {
        if !holds {
            self.note(key, format_args!("{value} is not {rule}"));
        }
    }

    /// Notes a fault of `key`.
    pub(super) fn note(&mut self, key: &str, fault: impl Display) {
        self.faults.push(format!("{key}: {fault}"));
    }

    /// The error when nothing but `fault` can be said.
    pub(super) fn only(self, fault: impl Display) -> ManifestError {
        ManifestError::new(self.file, fault)
    }

    pub(super) fn into_result(self) -> Result<(), ManifestError> {
        if self.faults.is_empty() { Ok(()) } else { Err(ManifestError { file: self.file, faults: self.faults }) }
    }
}
