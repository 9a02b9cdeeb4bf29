//! The error of a model that cannot be loaded or run.

/// A model could not be loaded or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    kind: ModelErrorKind,
    message: String,
}

/// The cause of a [`ModelError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelErrorKind {
    /// The items do not fit the model. Other items can run.
    Input,
    /// The model failed, or its results are not those that its manifest promises.
    Model,
    /// The memory of the device or of the machine is too small for the batch. A smaller batch can run.
    OutOfMemory,
    /// The device failed or there is none. A new process or another machine may help.
    Device,
}

impl ModelError {
    /// An error of `kind`.
    pub fn new(kind: ModelErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// An error of [`ModelErrorKind::Input`].
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ModelErrorKind::Input, message)
    }

    /// An error of [`ModelErrorKind::Model`].
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(ModelErrorKind::Model, message)
    }

    /// The cause.
    pub fn kind(&self) -> ModelErrorKind {
        self.kind
    }
}
