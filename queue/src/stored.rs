//! The parts of a job for which a store has no column type: a blob reference and an origin. Both are stored as JSON
//! text.

use sha2::{Digest, Sha256};

use crate::{Body, Input, Origin};

/// A [`Body`] as its columns `body` and `blob`; exactly one is not null.
pub struct BodyColumns<'a> {
    /// The bytes of a body that travels inline.
    pub body: Option<&'a [u8]>,
    /// The reference to a body in the blob store, as JSON.
    pub blob: Option<String>,
}

impl<'a> BodyColumns<'a> {
    /// The columns of `body`.
    pub fn of(body: &'a Body) -> Self {
        match body {
            Body::Inline(bytes) => Self { body: Some(bytes), blob: None },
            Body::Reference(blob) => Self { body: None, blob: Some(serde_json::json!(blob).to_string()) },
        }
    }
}

/// The column `origin`.
pub fn origin_column(origin: Option<&Origin>) -> Option<String> {
    origin.map(|origin| serde_json::json!(origin).to_string())
}

/// The digest by which two inputs are compared. A reference counts by the digest of its blob's bytes, because each
/// submission has its own blob.
pub fn input_digest(input: &Input) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(input.media_type.as_bytes());
    match &input.body {
        Body::Inline(bytes) => {
            digest.update([0]);
            digest.update(bytes);
        }
        Body::Reference(blob) => {
            digest.update([1]);
            digest.update(blob.identity().as_bytes());
        }
    }
    digest.finalize().into()
}
