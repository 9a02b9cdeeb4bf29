//! Running a model. Only this module and its children use libtorch.
//!
//! [`open()`] is the entry: it turns a [`ModelSource`](model::ModelSource) into a [`Model`].

mod echo;
mod error;
pub mod image;
mod interface;
mod open;
mod pipeline;
#[cfg(feature = "torch")]
pub mod resnet50;
mod settings;
pub mod top_k;
#[cfg(feature = "torch")]
mod torch;

pub use echo::{CRASH_INPUT, FAILING_INPUT, REFUSED_INPUT};
pub use error::{ModelError, ModelErrorKind};
pub use interface::{Instance, Item, Model};
pub use open::open;
pub use pipeline::Pipeline;
pub use settings::{Device, ModelSettings};
#[cfg(feature = "torch")]
pub use torch::TorchModel;
