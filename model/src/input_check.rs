//! The check that an input passes before it is accepted, without a run of the model.

use std::fmt;
use std::sync::Arc;

use crate::input_fault::{InputFault, InputFaultKind};
use crate::json_tensors;
use crate::manifest::{Manifest, Preprocess};
use crate::media_type::{IMAGE_MEDIA_TYPES, TENSORS_MEDIA_TYPE, media_type_essence};

type Check = dyn Fn(&str, &[u8]) -> Result<(), InputFault> + Send + Sync;

/// The check of a pool's inputs. Clones share one check.
#[derive(Clone)]
pub struct InputCheck(Arc<Check>);

impl InputCheck {
    /// A check by `check`, which gets the media type and the body.
    pub fn new(check: impl Fn(&str, &[u8]) -> Result<(), InputFault> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    /// A check that accepts any input.
    pub fn accept_all() -> Self {
        Self::new(|_, _| Ok(()))
    }

    /// A check against a manifest; see [`Manifest::check`].
    pub fn by_manifest(manifest: Manifest) -> Self {
        Self::new(move |media_type, body| manifest.check(media_type, body))
    }

    /// Checks an input.
    pub fn check(&self, media_type: &str, body: &[u8]) -> Result<(), InputFault> {
        (self.0)(media_type, body)
    }
}

impl fmt::Debug for InputCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputCheck")
    }
}

impl Manifest {
    /// Checks an input before it is accepted. Tensors are checked completely. Images are checked by media type and
    /// for an empty body; only the worker decodes them.
    pub fn check(&self, media_type: &str, body: &[u8]) -> Result<(), InputFault> {
        let essence = media_type_essence(media_type);
        if essence == TENSORS_MEDIA_TYPE {
            return json_tensors::check(&self.inputs, body);
        }
        let takes_images = matches!(self.preprocess, Preprocess::Image(_));
        if !(takes_images && IMAGE_MEDIA_TYPES.contains(&essence.as_str())) {
            return Err(self.wrong_media_type(media_type));
        }
        if body.is_empty() {
            return Err(InputFault::new(InputFaultKind::Malformed, "body", "is empty; expected an image"));
        }
        Ok(())
    }

    /// The fault of an input whose media type the model does not take.
    pub fn wrong_media_type(&self, media_type: &str) -> InputFault {
        let accepted = match self.preprocess {
            Preprocess::None => TENSORS_MEDIA_TYPE.to_owned(),
            Preprocess::Image(_) => format!("{}, {TENSORS_MEDIA_TYPE}", IMAGE_MEDIA_TYPES.join(", ")),
        };
        let given: String = media_type.chars().take(80).collect();
        let message = format!("{given:?} is not one of {accepted}");
        InputFault::new(InputFaultKind::MediaType, "media_type", message)
    }
}
