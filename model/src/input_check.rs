//! What can be said of an input without running the model.

use super::{Manifest, Preprocess};
use crate::model::{image, tensors};

/// The media type of JSON tensors.
pub const TENSORS_MEDIA_TYPE: &str = "application/vnd.millrace.tensors+json";

/// Why an input cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InputFault {
    /// The part of the input that is wrong: `media_type`, `body`, or a path in JSON tensors such as `inputs[0].shape`.
    pub field: String,
    /// The value and the rule it breaks.
    pub message: String,
    /// What sort of fault it is.
    pub kind: InputFaultKind,
}

/// What sort of fault an input has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFaultKind {
    /// The pool takes no input of this media type.
    MediaType,
    /// The body is not what its media type says: empty, not JSON, not an image.
    Malformed,
    /// The body can be read, but the tensors in it are not those of the model: name, datatype, shape or count.
    Tensor,
}

impl Manifest {
    /// Checks an input before it is accepted. Tensors are checked whole; an image only by its media type, since decoding
    /// it is the worker's business.
    pub fn check(&self, media_type: &str, body: &[u8]) -> Result<(), InputFault> {
        let essence = media_type_essence(media_type);
        if essence == TENSORS_MEDIA_TYPE {
            return tensors::read(&self.inputs, body).map(|_| ());
        }
        let takes_images = matches!(self.preprocess, Preprocess::Image(_));
        if !(takes_images && image::format_of(&essence).is_some()) {
            return Err(self.wrong_media_type(media_type));
        }
        if body.is_empty() {
            return Err(InputFault::new(InputFaultKind::Malformed, "body", "is empty; expected an image"));
        }
        Ok(())
    }

    /// The fault of an input whose media type the model does not take.
    pub(crate) fn wrong_media_type(&self, media_type: &str) -> InputFault {
        let accepted = match self.preprocess {
            Preprocess::None => TENSORS_MEDIA_TYPE.to_owned(),
            Preprocess::Image(_) => format!("{}, {TENSORS_MEDIA_TYPE}", image::MEDIA_TYPES.join(", ")),
        };
        let given: String = media_type.chars().take(80).collect();
        let message = format!("{given:?} is not one of {accepted}");
        InputFault::new(InputFaultKind::MediaType, "media_type", message)
    }
}

impl InputFault {
    /// A fault of `field`.
    pub fn new(kind: InputFaultKind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), kind }
    }
}

/// A media type without its parameters, in lower case: `image/png` for `Image/PNG; q=1`.
pub fn media_type_essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
