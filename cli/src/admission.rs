//! Input checks: the gateway's interface, answered by the model's manifest.

use gateway::{Admission, Refusal, RefusalKind};
use worker::manifest::InputFaultKind;
use worker::model::InputCheck;

/// Refuses inputs that do not fit the model's manifest.
pub(crate) struct ManifestAdmission(pub(crate) InputCheck);

impl Admission for ManifestAdmission {
    fn check(&self, media_type: &str, body: &[u8]) -> Result<(), Refusal> {
        (self.0)(media_type, body).map_err(|fault| Refusal {
            kind: match fault.kind {
                InputFaultKind::MediaType => RefusalKind::UnsupportedMediaType,
                _ => RefusalKind::InvalidInput,
            },
            field: fault.field,
            reason: fault.message,
        })
    }
}
