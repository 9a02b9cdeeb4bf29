//! The step from the output tensors of a model to the output of a job.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::fault::Faults;
use crate::datatype::Datatype;
use crate::tensor::TensorSpec;

/// The step from tensors to an output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Postprocess {
    /// The tensors as JSON.
    #[default]
    Raw,
    /// The most probable classes.
    TopK(TopK),
}

/// The softmax of the first output, and the `k` most probable of its classes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopK {
    /// The number of classes in the output.
    pub k: usize,
    /// The names of the classes, in order; their numbers from 0 unless given. Reading `labels_file` sets them.
    #[serde(default)]
    pub labels: Vec<String>,
    /// A file in the model's folder with one name per line, instead of `labels`.
    pub labels_file: Option<PathBuf>,
}

impl Postprocess {
    /// Checks the step and reads the file of labels.
    pub(super) fn resolved(self, folder: &Path, outputs: &[TensorSpec], faults: &mut Faults) -> Self {
        match self {
            Self::Raw => Self::Raw,
            Self::TopK(step) => Self::TopK(step.resolved(folder, outputs, faults)),
        }
    }
}

impl TopK {
    fn resolved(mut self, folder: &Path, outputs: &[TensorSpec], faults: &mut Faults) -> Self {
        faults.unless(self.k >= 1, "postprocess.top_k.k", self.k, "at least 1");
        self.read_labels(folder, faults);
        let Some(output) = outputs.first() else { return self };
        let floats = matches!(output.datatype, Datatype::Fp32 | Datatype::Fp64);
        faults.unless(floats, "outputs[0].datatype", output.datatype, "FP32 or FP64, as top_k needs");
        let [classes] = output.shape[..] else {
            let shape = format_args!("{:?}", output.shape);
            faults.unless(false, "outputs[0].shape", shape, "one dimension, the classes, as top_k needs");
            return self;
        };
        // A negative number is a free dimension. Any number of labels fits it.
        if let Ok(classes) = usize::try_from(classes) {
            let rule = format!("at most the {classes} classes of outputs[0]");
            faults.unless(self.k <= classes, "postprocess.top_k.k", self.k, &rule);
            let rule = format!("one for each of the {classes} classes of outputs[0]");
            let named = self.labels.is_empty() || self.labels.len() == classes;
            faults.unless(named, "postprocess.top_k.labels", format_args!("{} labels", self.labels.len()), &rule);
        }
        self
    }

    fn read_labels(&mut self, folder: &Path, faults: &mut Faults) {
        let Some(name) = &self.labels_file else { return };
        let key = "postprocess.top_k.labels_file";
        if !self.labels.is_empty() {
            return faults.add(key, "labels are also given by postprocess.top_k.labels; remove one of the two");
        }
        match fs::read_to_string(folder.join(name)) {
            Ok(text) => self.labels = text.lines().map(|line| line.trim().to_owned()).collect(),
            Err(error) => {
                let path = folder.join(name);
                faults.add(key, format_args!("{}: {error}; expected one label per line", path.display()));
            }
        }
    }
}
