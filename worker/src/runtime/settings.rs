//! How a model runs on this machine.

use serde::{Deserialize, Serialize};

/// How a model runs on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelSettings {
    /// The device that the model runs on.
    pub device: Device,
    /// The most CPU threads of one forward pass. Unless given, libtorch uses one per core.
    pub threads: Option<usize>,
}

/// The device that a model runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The first GPU that works, or else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU. The model does not start without one.
    Cuda,
}
