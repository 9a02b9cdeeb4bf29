//! The inputs and outputs of a model: datatypes, tensors, their JSON form, the manifest and the input check; and the
//! times of its batches.
//!
//! The gateway and the worker both use this crate, so it depends neither on libtorch nor on the queue. Code that runs a
//! model is in the worker.

pub mod batch_time_model;
mod datatype;
mod input_check;
mod input_fault;
pub mod json_tensors;
mod manifest;
mod media_type;
mod source;
mod tensor;

pub use datatype::Datatype;
pub use input_check::InputCheck;
pub use input_fault::{InputFault, InputFaultKind};
pub use manifest::{BatchLimits, ImageStep, Manifest, ManifestError, Postprocess, Preprocess, TopK, WarmUp};
pub use media_type::{IMAGE_MEDIA_TYPES, TENSORS_MEDIA_TYPE, media_type_essence};
pub use source::{Echo, ModelSource};
pub use tensor::{HostTensor, TensorSpec};
