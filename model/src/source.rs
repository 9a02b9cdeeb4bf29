//! The model of a pool as configuration names it: `echo`, `echo:20ms`, `echo-faults`, or a folder.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::input_check::InputCheck;
use crate::manifest::{Manifest, ManifestError};

/// The source of a pool's model. As text, it is one of:
/// - `echo`, `echo:20ms` (a delay per batch) or `echo:20ms:64` (and the most items of a batch, 256 unless given);
/// - `echo-faults`, with the same parts: the echo model that also fails on request, see [`Echo::faults`];
/// - a folder: `models/digits/1`, or `models/digits` for the highest version in it.
///
/// A folder with the name `echo` is written `./echo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The model that returns its input.
    Echo(Echo),
    /// A folder with `model.yaml` and `model.pt`.
    Folder(PathBuf),
}

/// The model that returns each input unchanged, media type included, after a fixed time per batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// The time of a batch. It does not depend on the size.
    pub delay: Duration,
    /// The most items in one batch.
    pub max_items: usize,
    /// Whether some inputs make the model fail or crash. This is for tests and trials only: any client of the pool can
    /// then stop its workers.
    pub faults: bool,
}

impl Echo {
    /// The value of [`Echo::max_items`] unless one is given.
    pub const DEFAULT_MAX_ITEMS: usize = 256;

    /// The echo model with [`Echo::faults`].
    pub fn with_faults() -> Self {
        Self { faults: true, ..Self::default() }
    }

    fn name(&self) -> &'static str {
        if self.faults { "echo-faults" } else { "echo" }
    }
}

impl Default for Echo {
    fn default() -> Self {
        Self { delay: Duration::ZERO, max_items: Self::DEFAULT_MAX_ITEMS, faults: false }
    }
}

impl ModelSource {
    /// The check of inputs before they are accepted. It needs the manifest, but neither `model.pt` nor libtorch.
    pub fn input_check(&self) -> Result<InputCheck, ManifestError> {
        match self {
            Self::Echo(_) => Ok(InputCheck::accept_all()),
            Self::Folder(folder) => Ok(InputCheck::by_manifest(Manifest::read(folder)?)),
        }
    }
}

impl FromStr for ModelSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let mut echo = match parts.next() {
            Some("echo") => Echo::default(),
            Some("echo-faults") => Echo::with_faults(),
            _ if text.is_empty() => return Err("\"\" is neither echo, echo:<delay> nor a folder".to_owned()),
            _ => return Ok(Self::Folder(PathBuf::from(text))),
        };
        if let Some(delay) = parts.next() {
            echo.delay = humantime::parse_duration(delay)
                .ok()
                .filter(|delay| *delay <= Duration::from_secs(3600))
                .ok_or_else(|| format!("{text:?}: the delay {delay:?} is not a time of at most 1h, such as 20ms"))?;
        }
        if let Some(items) = parts.next() {
            echo.max_items = items
                .parse()
                .ok()
                .filter(|items| (1..=65_536).contains(items))
                .ok_or_else(|| format!("{text:?}: {items:?} is not a number of items from 1 to 65536"))?;
        }
        match parts.next() {
            None => Ok(Self::Echo(echo)),
            Some(_) => Err(format!("{text:?} has more parts than {}:<delay>:<items>", echo.name())),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let echo = match self {
            Self::Echo(echo) => echo,
            Self::Folder(folder) => return write!(f, "{}", folder.display()),
        };
        f.write_str(echo.name())?;
        let has_default_limit = echo.max_items == Echo::DEFAULT_MAX_ITEMS;
        if !(has_default_limit && echo.delay.is_zero()) {
            write!(f, ":{}", delay_text(echo.delay))?;
        }
        if !has_default_limit {
            write!(f, ":{}", echo.max_items)?;
        }
        Ok(())
    }
}

/// A delay without spaces: `1s500ms`, not `1s 500ms`. Both parse to the same delay.
fn delay_text(delay: Duration) -> String {
    humantime::format_duration(delay).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_reads_back_as_it_was_written() {
        for text in [
            "echo",
            "echo:20ms",
            "echo:1s500ms:64",
            "echo:0s:1",
            "echo-faults",
            "echo-faults:20ms",
            "echo-faults:0s:1",
            "models/digits/1",
            "./echo",
            "/m/echo:1",
        ] {
            assert_eq!(text.parse::<ModelSource>().unwrap().to_string(), text);
        }
        let echo = Echo { delay: Duration::from_millis(20), max_items: 64, faults: false };
        assert_eq!("echo:20ms:64".parse(), Ok(ModelSource::Echo(echo.clone())));
        assert_eq!("echo-faults:20ms:64".parse(), Ok(ModelSource::Echo(Echo { faults: true, ..echo })));
    }

    #[test]
    fn a_wrong_source_is_refused_with_its_text() {
        for text in [
            "",
            "echo:",
            "echo:soon",
            "echo:-1s",
            "echo:2h",
            "echo:1s:0",
            "echo:1s:x",
            "echo:1s:1:1",
            "echo-faults:",
            "echo-faults:1s:1:1",
        ] {
            let error = text.parse::<ModelSource>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn the_echo_model_accepts_any_input() {
        for text in ["echo", "echo-faults"] {
            let source: ModelSource = text.parse().unwrap();
            assert_eq!(source.input_check().unwrap().check("application/x-anything", b""), Ok(()));
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_with_what_was_expected() {
        let source: ModelSource = "no/such/folder".parse().unwrap();
        let error = source.input_check().unwrap_err().to_string();
        assert!(error.contains("no/such/folder") && error.contains("models/<name>/<version>"), "{error}");
    }
}
