//! The reason why an input cannot be run.

/// The reason why an input cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InputFault {
    /// The wrong part of the input: `media_type`, `body`, or a path in JSON tensors such as `inputs[0].shape`.
    pub field: String,
    /// The value and the rule that it breaks.
    pub message: String,
    /// The kind of fault, by which a caller chooses its answer.
    pub kind: InputFaultKind,
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFaultKind {
    /// The pool takes no input of this media type.
    MediaType,
    /// The body does not match its media type: it is empty, not JSON or not an image.
    Malformed,
    /// The body can be read, but its tensors differ from the model's inputs in name, datatype, shape or count.
    Tensor,
}

impl InputFault {
    /// A fault of `field`.
    pub fn new(kind: InputFaultKind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), kind }
    }
}
