//! A model in two halves: CPU threads share a [`Model`], and one OS thread owns an [`Instance`].

use bytes::Bytes;
use model::HostTensor;
use queue::{JobError, Output};

use super::error::ModelError;

/// The half of a model that prepares inputs and presents outputs. CPU threads share it.
pub trait Model: Send + Sync {
    /// Decodes and preprocesses one input. An error is the fault of this input. Only its job fails, without a retry.
    fn prepare(&self, media_type: &str, body: Bytes) -> Result<Item, JobError>;

    /// The most memory in bytes that [`Model::prepare`] takes, without `body` and with the item. It is quick, and it
    /// reads only the header of an image. The worker prepares as many inputs at once as its memory allows.
    ///
    /// The default is for a model whose item is the body itself.
    fn memory_to_prepare(&self, media_type: &str, body: &[u8]) -> u64 {
        let _ = (media_type, body);
        0
    }

    /// Postprocesses the tensors that [`Instance::run`] returned for one item.
    fn present(&self, tensors: Vec<HostTensor>) -> Result<Output, JobError>;

    /// The most items in one batch.
    fn max_batch_items(&self) -> usize;

    /// Loads the weights onto a device. The thread that calls this will own the instance.
    fn instance(&self) -> Result<Box<dyn Instance>, ModelError>;
}

/// The half of a model that owns the weights. It never leaves its OS thread.
pub trait Instance {
    /// Runs one batch of items of one shape. Returns one list of output tensors per item, in order.
    ///
    /// An error is about the batch as a whole. The caller splits the batch to find the item that causes it.
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError>;

    /// Runs the largest batch, because the first batch of a model is slow and no job should wait for that.
    fn warm_up(&mut self) -> Result<(), ModelError>;
}

/// One prepared input. Items of the same shape can share a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The tensors: one per input of the model, in the model's order.
    pub tensors: Vec<HostTensor>,
}

impl Item {
    /// The memory of the elements.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.data.len() as u64).sum()
    }
}
