//! What configuration says of a pool's model: `echo`, `echo:20ms`, or a folder.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Echo, Model};
use crate::manifest::{InputFault, Manifest, ManifestError};

/// Where a pool's model comes from. As text, one of:
/// - `echo`, `echo:20ms` (a delay per batch) or `echo:20ms:64` (and the most items of a batch, 256 unless given);
/// - a folder: `models/digits/1`, or `models/digits` for the highest version in it.
///
/// A folder that is itself called `echo` is written `./echo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ModelSource {
    /// The model that returns its input.
    Echo(Echo),
    /// A folder with `model.yaml` and `model.pt`.
    Folder(PathBuf),
}

/// How a model is run on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelSettings {
    /// Where it runs.
    pub device: Device,
    /// How many CPU threads one forward pass may use; libtorch's own choice (one per core) unless given.
    pub threads: Option<usize>,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The first GPU if there is one that works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU; without one the model does not start.
    Cuda,
}

/// What is known of an input before any worker has seen it; see [`Manifest::check`].
pub type InputCheck = Arc<dyn Fn(&str, &[u8]) -> Result<(), InputFault> + Send + Sync>;

impl ModelSource {
    /// Reads the manifest and makes sure that the model's file is there. The weights are loaded later, by
    /// [`Model::instance`].
    pub fn open(&self, settings: &ModelSettings) -> Result<Arc<dyn Model>, ManifestError> {
        match self {
            Self::Echo(echo) => Ok(Arc::new(echo.clone())),
            Self::Folder(folder) => open_folder(Manifest::read(folder)?, settings),
        }
    }

    /// The check of inputs before they are accepted. It needs the manifest alone: neither `model.pt` nor libtorch.
    pub fn input_check(&self) -> Result<InputCheck, ManifestError> {
        match self {
            Self::Echo(_) => Ok(Arc::new(|_, _| Ok(()))),
            Self::Folder(folder) => {
                let manifest = Manifest::read(folder)?;
                Ok(Arc::new(move |media_type, body| manifest.check(media_type, body)))
            }
        }
    }
}

#[cfg(feature = "torch")]
fn open_folder(manifest: Manifest, settings: &ModelSettings) -> Result<Arc<dyn Model>, ManifestError> {
    Ok(Arc::new(super::TorchModel::open(manifest, settings.clone())?))
}

#[cfg(not(feature = "torch"))]
fn open_folder(manifest: Manifest, _: &ModelSettings) -> Result<Arc<dyn Model>, ManifestError> {
    let file = manifest.model_file()?;
    let fault = "this program was built without libtorch and runs only the model echo; \
                 build it with `cargo build --release --features torch`";
    Err(ManifestError::new(file, fault))
}

impl FromStr for ModelSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        if parts.next() != Some("echo") {
            return match text {
                "" => Err("\"\" is neither echo, echo:<delay> nor a folder".to_owned()),
                folder => Ok(Self::Folder(PathBuf::from(folder))),
            };
        }
        let mut echo = Echo::default();
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
            Some(_) => Err(format!("{text:?} has more parts than echo:<delay>:<items>")),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo(echo) if *echo == Echo::default() => f.write_str("echo"),
            Self::Echo(Echo { delay, max_items: Echo::DEFAULT_MAX_ITEMS }) => {
                write!(f, "echo:{}", delay_text(*delay))
            }
            Self::Echo(Echo { delay, max_items }) => write!(f, "echo:{}:{max_items}", delay_text(*delay)),
            Self::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

/// `1s 500ms` reads back as well as `1s500ms`, but is no single word.
fn delay_text(delay: Duration) -> String {
    humantime::format_duration(delay).to_string().replace(' ', "")
}

impl TryFrom<String> for ModelSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ModelSource> for String {
    fn from(source: ModelSource) -> Self {
        source.to_string()
    }
}

impl schemars::JsonSchema for ModelSource {
    fn schema_name() -> Cow<'static, str> {
        "ModelSource".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "echo, echo:<delay per batch>, echo:<delay>:<most items of a batch>, or a model's folder",
            "examples": ["echo:20ms", "models/digits/1"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_reads_back_as_it_was_written() {
        for text in ["echo", "echo:20ms", "echo:1s500ms:64", "echo:0s:1", "models/digits/1", "./echo", "/m/echo:1"] {
            assert_eq!(text.parse::<ModelSource>().unwrap().to_string(), text);
        }
        let echo = Echo { delay: Duration::from_millis(20), max_items: 64 };
        assert_eq!("echo:20ms:64".parse(), Ok(ModelSource::Echo(echo)));
    }

    #[test]
    fn a_wrong_source_is_refused_with_its_text() {
        for text in ["", "echo:", "echo:soon", "echo:-1s", "echo:2h", "echo:1s:0", "echo:1s:x", "echo:1s:1:1"] {
            let error = text.parse::<ModelSource>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn the_echo_model_accepts_any_input() {
        let source: ModelSource = "echo".parse().unwrap();
        assert_eq!(source.input_check().unwrap()("application/x-anything", b""), Ok(()));
        assert_eq!(source.open(&ModelSettings::default()).unwrap().max_batch_items(), 256);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_with_what_was_expected() {
        let source: ModelSource = "no/such/folder".parse().unwrap();
        let error = source.input_check().err().unwrap().to_string();
        assert!(error.contains("no/such/folder") && error.contains("models/<name>/<version>"), "{error}");
    }

    #[cfg(not(feature = "torch"))]
    #[test]
    fn without_libtorch_a_folder_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("squares/1");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("model.pt"), b"").unwrap();
        let yaml =
            "inputs: [{name: x, datatype: FP32, shape: [2]}]\noutputs: [{name: y, datatype: FP32, shape: [2]}]\n";
        std::fs::write(version.join("model.yaml"), yaml).unwrap();
        let source = ModelSource::Folder(version);
        let error = source.open(&ModelSettings::default()).err().unwrap().to_string();
        assert!(error.contains("--features torch"), "{error}");
        assert!(source.input_check().is_ok());
    }
}
