//! TorchScript models. libtorch runs them.

use std::path::PathBuf;

use bytes::Bytes;
use model::{HostTensor, Manifest, ManifestError};
use queue::{JobError, Output};
use tch::{CModule, IValue, TchError, Tensor};

use super::error::ModelError;
use super::interface::{Instance, Item, Model};
use super::pipeline::Pipeline;
use super::settings::ModelSettings;

mod batch;
mod device;
mod error;

/// A model from a folder with `model.yaml` and `model.pt`.
#[derive(Debug)]
pub struct TorchModel {
    pipeline: Pipeline,
    file: PathBuf,
    settings: ModelSettings,
}

impl TorchModel {
    /// The model of a manifest. An error if its file does not exist. [`Model::instance`] reads the file.
    pub fn open(manifest: Manifest, settings: ModelSettings) -> Result<Self, ManifestError> {
        Ok(Self { file: manifest.model_file()?, pipeline: Pipeline::new(manifest), settings })
    }
}

impl Model for TorchModel {
    fn prepare(&self, media_type: &str, body: Bytes) -> Result<Item, JobError> {
        self.pipeline.prepare(media_type, &body)
    }

    fn memory_to_prepare(&self, media_type: &str, body: &[u8]) -> u64 {
        self.pipeline.memory_to_prepare(media_type, body)
    }

    fn present(&self, tensors: Vec<HostTensor>) -> Result<Output, JobError> {
        self.pipeline.present(&tensors)
    }

    fn max_batch_items(&self) -> usize {
        self.pipeline.manifest().batch.max_items
    }

    fn instance(&self) -> Result<Box<dyn Instance>, ModelError> {
        let device = device::choose(self.settings.device)?;
        if let Some(threads) = self.settings.threads {
            // OpenMP has this number per calling thread, so the thread that owns the instance must set it.
            tch::set_num_threads(threads.clamp(1, 1024) as i32);
        }
        let in_file = |error| error::model_error(&self.file.display().to_string(), &error);
        let mut module = CModule::load_on_device(&self.file, device).map_err(in_file)?;
        module.f_set_eval().map_err(in_file)?;
        tracing::info!(model = %self.file.display(), ?device, threads = tch::get_num_threads(), "model loaded");
        Ok(Box::new(TorchInstance { module, device, manifest: self.pipeline.manifest().clone() }))
    }
}

/// The weights and their device. One thread owns them.
struct TorchInstance {
    module: CModule,
    device: tch::Device,
    manifest: Manifest,
}

impl Instance for TorchInstance {
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let _no_grad = tch::no_grad_guard();
        let inputs = batch::stack(&self.manifest.inputs, items, self.device)?;
        let outputs = self.forward(inputs)?;
        batch::split(&self.manifest.outputs, &outputs, items.len())
    }

    fn warm_up(&mut self) -> Result<(), ModelError> {
        let item = batch::blank(&self.manifest.inputs, self.manifest.warm_up.free_dimension);
        let items = vec![item; self.manifest.batch.max_items];
        for _ in 0..self.manifest.warm_up.batches {
            self.run(&items)?;
        }
        Ok(())
    }
}

impl TorchInstance {
    /// Runs the forward pass. Returns one tensor per output of the manifest.
    fn forward(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, ModelError> {
        if self.manifest.outputs.len() == 1 {
            return Ok(vec![self.module.forward_ts(&inputs).map_err(forward_failed)?]);
        }
        // Only forward_is returns several tensors. When it fails, tch 0.24 leaks its inputs. Emptying them frees the
        // memory.
        let values: Vec<IValue> = inputs.iter().map(|input| IValue::Tensor(input.shallow_clone())).collect();
        let given = self.module.forward_is(&values).map_err(|error| {
            for mut input in inputs {
                if let Err(error) = input.f_set_() {
                    tracing::warn!(%error, "cannot free the memory of a failed batch");
                }
            }
            forward_failed(error)
        })?;
        let wanted = self.manifest.outputs.len();
        match given {
            IValue::Tuple(values) | IValue::GenericList(values) => values
                .into_iter()
                .map(|value| match value {
                    IValue::Tensor(tensor) => Ok(tensor),
                    other => Err(ModelError::model(format!("forward returned {other:?} where a tensor was expected"))),
                })
                .collect(),
            IValue::TensorList(tensors) => Ok(tensors),
            IValue::Tensor(_) => {
                Err(ModelError::model(format!("forward returned one tensor where {wanted} were expected")))
            }
            _ => Err(ModelError::model(format!("forward returned no tensors where {wanted} were expected"))),
        }
    }
}

fn forward_failed(error: TchError) -> ModelError {
    error::model_error("the forward pass failed", &error)
}

#[cfg(test)]
mod tests;
