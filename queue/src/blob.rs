//! Bytes too big to travel with a job.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Body, Error, ErrorKind, JobId, Result};

/// Where an object lies, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Its path in the blob store.
    pub key: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of its bytes, in lowercase hexadecimal.
    pub sha256: String,
}

/// A store for inputs and outputs above a size; smaller ones stay where they are.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    inline_limit_bytes: usize,
}

impl Blobs {
    /// The size up to which bytes travel with the job unless configured otherwise.
    pub const INLINE_LIMIT_BYTES: usize = 256 * 1024;

    /// Blobs as files below `folder`, which is made if it is missing.
    pub fn directory(folder: &Path, inline_limit_bytes: usize) -> Result<Self> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::caused(ErrorKind::Unavailable, format_args!("blob store {}", folder.display()), error)
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| failed(error.into()))?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), inline_limit_bytes })
    }

    /// Bytes for a job, durable when this returns: inline when they are small, else put under `role` (`input`, `output`)
    /// and a name that no other call uses.
    pub async fn body(&self, id: &JobId, role: &str, bytes: Bytes) -> Result<Body> {
        if bytes.len() <= self.inline_limit_bytes {
            return Ok(Body::Inline(bytes));
        }
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        // Unique, so that purging one record never deletes what another refers to.
        let key = format!("{role}/{id}/{}", uuid::Uuid::now_v7());
        let size_bytes = bytes.len() as u64;
        self.store.put(&key.as_str().into(), bytes.into()).await.map_err(|error| failed("write", &key, error))?;
        Ok(Body::Reference(BlobRef { key, size_bytes, sha256 }))
    }

    /// The bytes of a body, checked against size and digest.
    pub async fn bytes(&self, body: &Body) -> Result<Bytes> {
        let blob = match body {
            Body::Inline(bytes) => return Ok(bytes.clone()),
            Body::Reference(blob) => blob,
        };
        let path = object_store::path::Path::from(blob.key.as_str());
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(|error| failed("read", &blob.key, error))?,
            Err(error) => return Err(failed("read", &blob.key, error)),
        };
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if bytes.len() as u64 != blob.size_bytes || sha256 != blob.sha256 {
            let message = format!("blob {}: size or digest differs from its reference", blob.key);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(bytes)
    }

    /// Deletes a blob; one that is gone already is no error.
    pub async fn delete(&self, blob: &BlobRef) -> Result<()> {
        match self.store.delete(&blob.key.as_str().into()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", &blob.key, error)),
        }
    }
}

fn failed(verb: &str, key: &str, error: object_store::Error) -> Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => ErrorKind::Corrupt,
        _ if is_full(&error) => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    Error::caused(kind, format_args!("blob {key}: cannot {verb}"), error)
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|io| {
            use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
            matches!(io.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        })
    })
}
