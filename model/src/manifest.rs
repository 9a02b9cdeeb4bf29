//! `model.yaml`: the inputs and outputs of a model, and how to run it.
//!
//! The folder of a model is `models/<name>/<version>/`. It holds `model.pt` (TorchScript) and `model.yaml` (this
//! manifest). The folders give the model its name and version, so the manifest cannot contradict them. Shapes leave out
//! the batch dimension, which is always the first. −1 in a shape stands for a free dimension.
//!
//! ```yaml
//! inputs:
//!   - {name: image, datatype: FP32, shape: [3, 224, 224]}
//! outputs:
//!   - {name: logits, datatype: FP32, shape: [1000]}
//! preprocess:            # none (the default): inputs are JSON tensors
//!   image: {width: 224, height: 224, channels: 3, resize: 256, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
//! postprocess:           # raw (the default): outputs are JSON tensors
//!   top_k: {k: 5, labels_file: labels.txt}
//! batch: {max_items: 32}
//! warm_up: {batches: 2}
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::datatype::Datatype;
use crate::tensor::TensorSpec;

mod fault;
mod folder;
mod postprocess;
mod preprocess;
mod sections;

pub use fault::ManifestError;
pub use postprocess::{Postprocess, TopK};
pub use preprocess::{ImageStep, Preprocess};

use fault::Faults;
use folder::VersionFolder;
use sections::Sections;

/// The manifest of one version of a model, with the name and version that its folder gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The model's name: the name of the folder of its versions.
    pub name: String,
    /// The version: the name of the folder that holds the files, a whole number from 1.
    pub version: u32,
    /// The folder that holds `model.yaml` and `model.pt`.
    pub folder: PathBuf,
    /// The arguments of `forward`, in order.
    pub inputs: Vec<TensorSpec>,
    /// The results of `forward`, in order: one tensor, or a tuple of several.
    pub outputs: Vec<TensorSpec>,
    /// How an input becomes tensors.
    pub preprocess: Preprocess,
    /// How the tensors become an output.
    pub postprocess: Postprocess,
    /// The limits of a batch.
    pub batch: BatchLimits,
    /// The batches that run before the first job.
    pub warm_up: WarmUp,
}

/// The limits of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchLimits {
    /// The most items of a batch; 32 unless given.
    pub max_items: usize,
}

/// The batches that run before the first job. The first batches of a model are slow, and no job should wait for that.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmUp {
    /// The number of full batches; 2 unless given, since TorchScript optimises itself during its first two batches.
    pub batches: usize,
    /// The size of each free dimension in these batches; 1 unless given.
    pub free_dimension: i64,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_items: 32 }
    }
}

impl Default for WarmUp {
    fn default() -> Self {
        Self { batches: 2, free_dimension: 1 }
    }
}

impl Manifest {
    /// Reads the manifest of a version's folder, or of the highest version in a model's folder.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let folder = VersionFolder::find(path)?;
        let file = folder.path.join("model.yaml");
        let text = fs::read_to_string(&file).map_err(|error| ManifestError::new(&file, error))?;
        Self::parse(folder, &text)
    }

    /// The path of the TorchScript file. An error if the file does not exist.
    pub fn model_file(&self) -> Result<PathBuf, ManifestError> {
        let file = self.folder.join("model.pt");
        if file.is_file() {
            return Ok(file);
        }
        Err(ManifestError::new(file, "does not exist; expected the model as a TorchScript file beside model.yaml"))
    }

    fn parse(folder: VersionFolder, text: &str) -> Result<Self, ManifestError> {
        let mut faults = Faults::new(folder.path.join("model.yaml"));
        // Only `true` and `false` are booleans: `y` can be the name of a tensor, and `no` can be a label.
        let options = serde_saphyr::options! { strict_booleans: true };
        let value: Value = match serde_saphyr::from_str_with_options(text, options) {
            Ok(value) => value,
            Err(error) => return Err(faults.only(error.without_snippet())),
        };
        let Value::Object(map) = value else {
            return Err(faults.only("is not a map of inputs, outputs, preprocess, postprocess, batch, warm_up"));
        };
        // Each section is read separately, so that one fault does not hide the next.
        let mut sections = Sections::new(map);
        let inputs: Vec<TensorSpec> = sections.list("inputs", &mut faults);
        let outputs: Vec<TensorSpec> = sections.list("outputs", &mut faults);
        let preprocess: Option<Preprocess> = sections.take("preprocess", &mut faults);
        let postprocess: Option<Postprocess> = sections.take("postprocess", &mut faults);
        let batch: Option<BatchLimits> = sections.take("batch", &mut faults);
        let warm_up: Option<WarmUp> = sections.take("warm_up", &mut faults);
        sections.reject_unknown_keys(&mut faults);

        check_tensors("inputs", &inputs, &mut faults);
        check_tensors("outputs", &outputs, &mut faults);
        if let Some(preprocess) = &preprocess {
            preprocess.check(&inputs, &mut faults);
        }
        let postprocess = postprocess.map(|step| step.resolved(&folder.path, &outputs, &mut faults));
        if let Some(batch) = &batch {
            faults.unless(
                (1..=65_536).contains(&batch.max_items),
                "batch.max_items",
                batch.max_items,
                "from 1 to 65536",
            );
        }
        if let Some(warm_up) = &warm_up {
            faults.unless(warm_up.batches <= 100, "warm_up.batches", warm_up.batches, "from 0 to 100");
            let free = warm_up.free_dimension;
            faults.unless((1..=65_536).contains(&free), "warm_up.free_dimension", free, "from 1 to 65536");
        }
        match (faults.into_result(), preprocess, postprocess, batch, warm_up) {
            (Ok(()), Some(preprocess), Some(postprocess), Some(batch), Some(warm_up)) => Ok(Self {
                name: folder.name,
                version: folder.version,
                folder: folder.path,
                inputs,
                outputs,
                preprocess,
                postprocess,
                batch,
                warm_up,
            }),
            (Err(error), ..) => Err(error),
            // A missing section always has a recorded fault, so this arm is never reached.
            (Ok(()), ..) => Err(ManifestError::new(folder.path.join("model.yaml"), "cannot be read")),
        }
    }
}

fn check_tensors(section: &str, specs: &[TensorSpec], faults: &mut Faults) {
    for (index, spec) in specs.iter().enumerate() {
        let key = |field: &str| format!("{section}[{index}].{field}");
        faults.unless(!spec.name.is_empty(), &key("name"), "\"\"", "a name");
        let is_repeated = specs[..index].iter().any(|earlier| earlier.name == spec.name);
        faults.unless(!is_repeated, &key("name"), format_args!("{:?}", spec.name), "a name that no other tensor has");
        let torch_has_it = spec.datatype != Datatype::Bytes;
        let rule = "one of BOOL, UINT8, INT8, INT16, INT32, INT64, FP32, FP64";
        faults.unless(torch_has_it, &key("datatype"), spec.datatype, rule);
        let sized = spec.shape.iter().all(|size| *size == -1 || (1..=1 << 30).contains(size));
        let rule = "made of dimensions from 1 to 2^30, or -1 for a free one (without the batch)";
        faults.unless(sized, &key("shape"), format_args!("{:?}", spec.shape), rule);
    }
}

#[cfg(test)]
mod tests;
