//! `model.yaml`: what a model takes and gives, and how it wants to be run.
//!
//! A model lies in `models/<name>/<version>/`: `model.pt` (TorchScript) and `model.yaml` (this manifest). Its name and
//! version are those of the folders, so that they cannot disagree. Shapes never include the batch dimension: it is
//! always the first of what the model is given, and −1 in a shape is any other dimension that is free.
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

use crate::model::Datatype;

mod fault;
mod folder;
mod input;
mod postprocess;
mod preprocess;
mod sections;

pub use fault::ManifestError;
pub use input::{InputFault, InputFaultKind, TENSORS_MEDIA_TYPE, media_type_essence};
pub use postprocess::{Postprocess, TopK};
pub use preprocess::{ImageStep, Preprocess};

use fault::Faults;
use folder::VersionFolder;
use sections::Sections;

/// What `model.yaml` says of one version of a model, with what its folder's name says.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The model's name: the name of the folder of its versions.
    pub name: String,
    /// The version: the name of the folder that holds the files, a whole number from 1.
    pub version: u32,
    /// The folder that holds `model.yaml` and `model.pt`.
    pub folder: PathBuf,
    /// What `forward` takes, in order.
    pub inputs: Vec<TensorSpec>,
    /// What `forward` gives, in order: one tensor, or a tuple of several.
    pub outputs: Vec<TensorSpec>,
    /// How an input becomes tensors.
    pub preprocess: Preprocess,
    /// How the tensors become an output.
    pub postprocess: Postprocess,
    /// How much may run at once.
    pub batch: BatchLimits,
    /// What runs before the first job.
    pub warm_up: WarmUp,
}

/// A tensor that a model takes or gives, in the terms of the Open Inference Protocol.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The tensor's name.
    pub name: String,
    /// The type of an element.
    pub datatype: Datatype,
    /// The dimensions of one item, without the batch; −1 for one that is free.
    pub shape: Vec<i64>,
}

/// How much of a model may run at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchLimits {
    /// The most items of a batch; 32 unless given.
    pub max_items: usize,
}

/// What runs before the first job, so that the first job is not the slow one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmUp {
    /// How many of the largest batches run; 2 unless given, since TorchScript optimises itself during its first two.
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

impl TensorSpec {
    /// Whether `shape` (without the batch dimension) fits.
    pub fn takes_shape(&self, shape: &[i64]) -> bool {
        shape.len() == self.shape.len()
            && shape.iter().zip(&self.shape).all(|(given, wanted)| given == wanted || (*wanted == -1 && *given > 0))
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

    /// The TorchScript file, once it is sure to be there.
    pub fn model_file(&self) -> Result<PathBuf, ManifestError> {
        let file = self.folder.join("model.pt");
        if file.is_file() {
            return Ok(file);
        }
        Err(ManifestError::new(file, "is not there; expected the model as a TorchScript file beside model.yaml"))
    }

    fn parse(folder: VersionFolder, text: &str) -> Result<Self, ManifestError> {
        let mut faults = Faults::new(folder.path.join("model.yaml"));
        // A tensor may be called y and a label no: only true and false are booleans.
        let options = serde_saphyr::options! { strict_booleans: true };
        let value: Value = match serde_saphyr::from_str_with_options(text, options) {
            Ok(value) => value,
            Err(error) => return Err(faults.only(error.without_snippet())),
        };
        let Value::Object(map) = value else {
            return Err(faults.only("is not a map of inputs, outputs, preprocess, postprocess, batch, warm_up"));
        };
        // Each section is read on its own, so that one fault does not hide the next.
        let mut sections = Sections::new(map);
        let inputs: Vec<TensorSpec> = sections.list("inputs", &mut faults);
        let outputs: Vec<TensorSpec> = sections.list("outputs", &mut faults);
        let preprocess: Option<Preprocess> = sections.take("preprocess", &mut faults);
        let postprocess: Option<Postprocess> = sections.take("postprocess", &mut faults);
        let batch: Option<BatchLimits> = sections.take("batch", &mut faults);
        let warm_up: Option<WarmUp> = sections.take("warm_up", &mut faults);
        sections.refuse_the_rest(&mut faults);

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
            // A section is only missing when its fault was noted.
            (Ok(()), ..) => Err(ManifestError::new(folder.path.join("model.yaml"), "cannot be read")),
        }
    }
}

fn check_tensors(section: &str, specs: &[TensorSpec], faults: &mut Faults) {
    for (index, spec) in specs.iter().enumerate() {
        let key = |field: &str| format!("{section}[{index}].{field}");
        faults.unless(!spec.name.is_empty(), &key("name"), "\"\"", "a name");
        let twice = specs[..index].iter().any(|earlier| earlier.name == spec.name);
        faults.unless(!twice, &key("name"), format_args!("{:?}", spec.name), "a name that no other tensor has");
        let torch_knows = spec.datatype != Datatype::Bytes;
        let rule = "one of BOOL, UINT8, INT8, INT16, INT32, INT64, FP32, FP64";
        faults.unless(torch_knows, &key("datatype"), spec.datatype, rule);
        let sized = spec.shape.iter().all(|size| *size == -1 || (1..=1 << 30).contains(size));
        let rule = "made of dimensions from 1 to 2^30, or -1 for a free one (without the batch)";
        faults.unless(sized, &key("shape"), format_args!("{:?}", spec.shape), rule);
    }
}

#[cfg(test)]
mod tests;
