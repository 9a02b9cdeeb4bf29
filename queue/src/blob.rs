//! Inputs and outputs that are too big to travel with a job.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use crate::{BlobRef, Body, Error, ErrorKind, JobId, Result};

/// Whether bytes are the input or the output of a job. The folder of the blob depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The input of the model.
    Input,
    /// The output of the model.
    Output,
}

impl Role {
    fn folder(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// A store for inputs and outputs above a size. Smaller ones travel with the job and its record.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    inline_limit_bytes: usize,
}

impl Blobs {
    /// The default of the largest size of bytes that travel with the job.
    pub const INLINE_LIMIT_BYTES: usize = 256 * 1024;

    /// Blobs as files below `folder`, which is created if it is missing.
    pub fn directory(folder: &Path, inline_limit_bytes: usize) -> Result<Self> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::caused(ErrorKind::Unavailable, format_args!("blob store {}", folder.display()), error)
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| failed(error.into()))?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), inline_limit_bytes })
    }

    /// Makes a body of `bytes`. Small bytes are inline. Otherwise the body is an object that is durable when this
    /// returns. Each call uses a new name, so that deleting one record never deletes an object of another record.
    pub async fn body(&self, id: &JobId, role: Role, bytes: Bytes) -> Result<Body> {
        self.put_under(id, role, &uuid::Uuid::now_v7().to_string(), bytes).await
    }

    /// Moves the input of a delivered job to the store if the input is big. The same job and bytes give the same
    /// object, so the call may be repeated.
    pub async fn delivered(&self, id: &JobId, body: &Body) -> Result<Body> {
        match body {
            Body::Inline(bytes) if bytes.len() > self.inline_limit_bytes => {
                self.put_under(id, Role::Input, &digest(bytes), bytes.clone()).await
            }
            body => Ok(body.clone()),
        }
    }

    async fn put_under(&self, id: &JobId, role: Role, name: &str, bytes: Bytes) -> Result<Body> {
        if bytes.len() <= self.inline_limit_bytes {
            return Ok(Body::Inline(bytes));
        }
        let (key, size_bytes, sha256) =
            (format!("{}/{id}/{name}", role.folder()), Some(bytes.len() as u64), Some(digest(&bytes)));
        self.store.put(&key.as_str().into(), bytes.into()).await.map_err(|error| failed("write", &key, error))?;
        Ok(Body::Reference(BlobRef { key, size_bytes, sha256, is_borrowed: false }))
    }

    /// The bytes of a body, checked against size and digest where these are known.
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
        let is_sound = blob.size_bytes.is_none_or(|size| bytes.len() as u64 == size)
            && blob.sha256.as_ref().is_none_or(|sha256| *sha256 == digest(&bytes));
        if !is_sound {
            let message = format!("blob {}: size or digest differs from its reference", blob.key);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(bytes)
    }

    /// Deletes a blob. A missing blob is not an error; a borrowed one stays.
    pub async fn delete(&self, blob: &BlobRef) -> Result<()> {
        if blob.is_borrowed {
            return Ok(());
        }
        match self.store.delete(&blob.key.as_str().into()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", &blob.key, error)),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_big_delivery_is_one_blob_however_often_it_is_delivered_and_is_deleted_with_its_job() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::directory(folder.path(), 4).unwrap();
        let id: JobId = "job".parse().unwrap();
        let (small, big) = (Body::Inline(Bytes::from_static(b"1234")), Body::Inline(Bytes::from_static(b"12345")));
        assert_eq!(blobs.delivered(&id, &small).await.unwrap(), small);
        let stored = blobs.delivered(&id, &big).await.unwrap();
        assert_eq!(blobs.delivered(&id, &big).await.unwrap(), stored);
        assert_eq!(blobs.bytes(&stored).await.unwrap(), "12345");
        let Body::Reference(blob) = &stored else { panic!("{stored:?}") };
        let borrowed = BlobRef { is_borrowed: true, size_bytes: None, sha256: None, ..blob.clone() };
        blobs.delete(&borrowed).await.unwrap();
        assert_eq!(blobs.bytes(&Body::Reference(borrowed)).await.unwrap(), "12345");
        blobs.delete(blob).await.unwrap();
        assert_eq!(blobs.bytes(&stored).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
