//! The steps before and after the forward pass of a model, as its manifest defines them. None needs libtorch.

use std::fmt;

use model::{
    HostTensor, InputFault, Manifest, Postprocess, Preprocess, TENSORS_MEDIA_TYPE, json_tensors, media_type_essence,
};
use queue::{Body, JobError, JobErrorKind, Output};

use super::image::{self, ImagePreprocessor};
use super::interface::Item;
use super::top_k;

/// Turns inputs into items, and tensors into outputs.
#[derive(Debug)]
pub struct Pipeline {
    manifest: Manifest,
    image: Option<ImagePreprocessor>,
}

impl Pipeline {
    /// The pipeline of one model.
    pub fn new(manifest: Manifest) -> Self {
        let image = match (&manifest.preprocess, manifest.inputs.first()) {
            (Preprocess::Image(step), Some(input)) => Some(ImagePreprocessor::new(step.clone(), input.name.clone())),
            _ => None,
        };
        Self { manifest, image }
    }

    /// The model's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Decodes and preprocesses one input. An error is of kind `bad_input`.
    pub fn prepare(&self, media_type: &str, body: &[u8]) -> Result<Item, JobError> {
        let tensors = self.tensors(media_type, body).map_err(|fault| {
            // The gateway refuses such an input, but not every input comes from the gateway.
            JobErrorKind::BadInput.error(fault.to_string())
        })?;
        Ok(Item { tensors })
    }

    /// The most memory that [`Pipeline::prepare`] takes, without `body`.
    pub fn memory_to_prepare(&self, media_type: &str, body: &[u8]) -> u64 {
        let essence = media_type_essence(media_type);
        if essence == TENSORS_MEDIA_TYPE {
            return json_tensors::memory(&self.manifest.inputs, body.len());
        }
        match (&self.image, image::format_of(&essence)) {
            (Some(image), Some(format)) => image.memory(format, body),
            _ => 0,
        }
    }

    fn tensors(&self, media_type: &str, body: &[u8]) -> Result<Vec<HostTensor>, InputFault> {
        let essence = media_type_essence(media_type);
        if essence == TENSORS_MEDIA_TYPE {
            return json_tensors::read(&self.manifest.inputs, body);
        }
        match (&self.image, image::format_of(&essence)) {
            (Some(image), Some(format)) => Ok(vec![image.apply(format, body)?]),
            _ => Err(self.manifest.wrong_media_type(media_type)),
        }
    }

    /// Postprocesses the tensors that the model returned for one item. An error is of kind `model_error`.
    pub fn present(&self, tensors: &[HostTensor]) -> Result<Output, JobError> {
        let (media_type, body) = match (&self.manifest.postprocess, tensors.first()) {
            (Postprocess::Raw, _) => (TENSORS_MEDIA_TYPE, json_tensors::write(tensors).map_err(model_error)?),
            (Postprocess::TopK(step), Some(logits)) => {
                let predictions = top_k::top_k(step, logits).map_err(model_error)?;
                ("application/json", predictions.to_json().map_err(model_error)?)
            }
            (Postprocess::TopK(_), None) => return Err(model_error("the model returned no tensor")),
        };
        Ok(Output { media_type: media_type.to_owned(), body: Body::Inline(body) })
    }
}

fn model_error(error: impl fmt::Display) -> JobError {
    JobErrorKind::ModelError.error(error.to_string())
}

#[cfg(test)]
mod tests;
