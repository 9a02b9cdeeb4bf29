//! A model's own check of its inputs, as the gateway asks for it.

use gateway::{Admission, Refusal, RefusalKind};
use model::{InputCheck, InputFaultKind};

/// Lets the gateway refuse what the model's manifest rules out.
pub(crate) struct ManifestAdmission(pub(crate) InputCheck);

impl Admission for ManifestAdmission {
    fn check(&self, media_type: &str, body: &[u8]) -> Result<(), Refusal> {
        self.0.check(media_type, body).map_err(|fault| Refusal {
            kind: match fault.kind {
                InputFaultKind::MediaType => RefusalKind::UnsupportedMediaType,
                _ => RefusalKind::InvalidInput,
            },
            field: fault.field,
            reason: fault.message,
        })
    }
}
