//! Tensors in main memory, and the specification that a manifest gives of them.

use bytes::Bytes;
use serde::Deserialize;

use crate::datatype::Datatype;

/// A tensor in main memory, in the terms of the Open Inference Protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// The tensor's name.
    pub name: String,
    /// The type of an element.
    pub datatype: Datatype,
    /// The dimensions, without the batch dimension.
    pub shape: Vec<i64>,
    /// The elements, row-major, little-endian. A `BYTES` tensor holds the bytes of its only element.
    pub data: Bytes,
}

/// The specification of an input or output of a model, in the terms of the Open Inference Protocol.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The tensor's name.
    pub name: String,
    /// The type of an element.
    pub datatype: Datatype,
    /// The dimensions of one item, without the batch dimension. −1 stands for a free dimension.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether a tensor of `shape` (without the batch dimension) meets this specification.
    pub fn takes_shape(&self, shape: &[i64]) -> bool {
        shape.len() == self.shape.len()
            && shape.iter().zip(&self.shape).all(|(given, wanted)| given == wanted || (*wanted == -1 && *given > 0))
    }
}
