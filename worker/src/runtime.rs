//! A model, in two halves: what runs on CPU threads and is shared ([`Model`]), and what one OS thread owns
//! ([`Instance`]). Only below this module is anything known of libtorch.
//!
//! [`ModelSource`] is where to start: it is what configuration says of a model, and opens it.

use bytes::Bytes;
use queue::{JobError, Output};

mod datatype;
mod echo;
pub mod image;
mod pipeline;
#[cfg(feature = "torch")]
pub mod resnet50;
mod source;
pub mod tensors;
pub mod top_k;
#[cfg(feature = "torch")]
mod torch;

pub use datatype::Datatype;
pub use echo::Echo;
pub use pipeline::Pipeline;
pub use source::{Device, InputCheck, ModelSettings, ModelSource};
#[cfg(feature = "torch")]
pub use torch::TorchModel;

/// The half of a model that prepares inputs and presents outputs; shared by CPU threads.
pub trait Model: Send + Sync {
    /// Decodes and preprocesses one input. An error is the job's own fault: it fails, alone, for good.
    fn prepare(&self, media_type: &str, body: Bytes) -> Result<Item, JobError>;

    /// Postprocesses what [`Instance::run`] gave for one item.
    fn present(&self, tensors: Vec<HostTensor>) -> Result<Output, JobError>;

    /// The most items that may run at once.
    fn max_batch_items(&self) -> usize;

    /// Loads the weights onto a device. Called on the thread that will own the instance.
    fn instance(&self) -> Result<Box<dyn Instance>, ModelError>;
}

/// The half of a model that owns the weights; lives and dies on one OS thread.
pub trait Instance {
    /// Runs one batch of items of one shape; one list of output tensors per item, in order.
    ///
    /// An error speaks of the batch as a whole: the caller splits the batch to find the item at fault.
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError>;

    /// Runs the largest batch once, so that the first real one is not the slow one.
    fn warm_up(&mut self) -> Result<(), ModelError>;
}

/// One prepared input. Items of the same shape can share a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The tensors, one per input of the model, in its order.
    pub tensors: Vec<HostTensor>,
}

/// A tensor in main memory, in the terms of the Open Inference Protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// The tensor's name.
    pub name: String,
    /// The type of an element.
    pub datatype: Datatype,
    /// Without the batch dimension.
    pub shape: Vec<i64>,
    /// The elements, row-major, little-endian. A `BYTES` tensor holds one element of any length, as it is.
    pub data: Bytes,
}

/// The model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ModelError(pub String);
