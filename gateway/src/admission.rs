//! What a pool's model takes.

/// Says whether a pool's model takes an input, before anything of it is stored.
///
/// It is asked on the path of every request: it must not block, and looks at the input's outside (media type, tensor
/// names, datatypes, shapes). What only decoding can tell is the worker's to find.
pub trait Admission: Send + Sync {
    /// Refuses an input that no worker of the pool could run. `media_type` is as the client sent it, parameters and
    /// all; `body` is never empty.
    fn check(&self, media_type: &str, body: &[u8]) -> Result<(), Refusal>;
}

/// Why an input is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What sort of refusal it is.
    pub kind: RefusalKind,
    /// The part of the request at fault, such as `content-type` or `inputs[0].shape`.
    pub field: String,
    /// The value and the rule it breaks, without the field.
    pub reason: String,
}

/// What sort of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The model takes no input of this media type (415).
    UnsupportedMediaType,
    /// The media type is right and the content is not (422).
    InvalidInput,
}
