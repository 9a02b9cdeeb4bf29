//! References to objects in the blob store.

use serde::{Deserialize, Serialize};

/// A reference to an object in the blob store, with its expected size and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Its path in the blob store.
    pub key: String,
    /// Its size in bytes. `None`: not given, so not checked.
    pub size_bytes: Option<u64>,
    /// The SHA-256 of its bytes, in lowercase hexadecimal. `None`: not given, so not checked.
    pub sha256: Option<String>,
    /// Another program owns the object: it stays when the record of the job is deleted.
    #[serde(default)]
    pub is_borrowed: bool,
}

impl BlobRef {
    /// Identifies its bytes: their digest or, without one, their path.
    pub fn identity(&self) -> &str {
        self.sha256.as_ref().unwrap_or(&self.key)
    }
}
