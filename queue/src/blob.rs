//! Inputs and outputs that are too big to travel with a job.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
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
    /// The content of the store's marker when this process opened the store.
    marker: Bytes,
    inline_limit_bytes: usize,
}

/// The object that identifies a store. Its content is a unique id.
const MARKER: &str = "millrace-store";

impl Blobs {
    /// The default of the largest size of bytes that travel with the job.
    pub const INLINE_LIMIT_BYTES: usize = 256 * 1024;

    /// Blobs as files below `folder`, which is created if it is missing. Later calls are `Unavailable` while the folder
    /// is missing or another folder is in its place.
    pub fn directory(folder: &Path, inline_limit_bytes: usize) -> Result<Self> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::caused(ErrorKind::Unavailable, format_args!("blob store {}", folder.display()), error)
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let marker = marker(folder).map_err(|error| failed(error.into()))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| failed(error.into()))?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), marker: marker.into(), inline_limit_bytes })
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
        // The last digits of a name are evenly spread, so a role has at most 256 folders of about the same size.
        let spread = &name[name.len() - 2..];
        let key = format!("{}/{spread}/{id}.{name}", role.folder());
        let (size_bytes, sha256) = (Some(bytes.len() as u64), Some(digest(&bytes)));
        // A write would create the folder of the store again if it has vanished.
        self.check_marker().await?;
        self.store.put(&path(&key)?, bytes.into()).await.map_err(|error| failed("write", &key, error))?;
        Ok(Body::Reference(BlobRef { key, size_bytes, sha256, is_borrowed: false }))
    }

    /// The bytes of a body, checked against size and digest where these are known.
    pub async fn bytes(&self, body: &Body) -> Result<Bytes> {
        let blob = match body {
            Body::Inline(bytes) => return Ok(bytes.clone()),
            Body::Reference(blob) => blob,
        };
        let bytes = self.read(&blob.key).await?;
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
        for path in [path(&blob.key)?, ObjectPath::from(blob.key.as_str())] {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed("delete", &blob.key, error)),
            }
        }
        Ok(())
    }

    async fn read(&self, key: &str) -> Result<Bytes> {
        let exact = path(key)?;
        let found = match self.store.get(&exact).await {
            // Former versions stored a key with escapes.
            Err(object_store::Error::NotFound { .. }) => self.store.get(&ObjectPath::from(key)).await,
            found => found,
        };
        match found {
            Ok(found) => found.bytes().await.map_err(|error| failed("read", key, error)),
            Err(error) => {
                if is_of_object(&error) {
                    self.check_marker().await?;
                    return Err(Error::caused(ErrorKind::Corrupt, format_args!("blob {key}: cannot read"), error));
                }
                Err(failed("read", key, error))
            }
        }
    }

    /// `Unavailable` if the store has vanished, or if another store is in its place.
    async fn check_marker(&self) -> Result<()> {
        let read = async { self.store.get(&MARKER.into()).await?.bytes().await };
        let found = read.await.map_err(|error| {
            Error::caused(ErrorKind::Unavailable, format_args!("blob store: cannot read its marker {MARKER}"), error)
        })?;
        if found != self.marker {
            let message = format!("blob store: its marker {MARKER} has changed since this process started");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }
}

/// The path of an object, without escapes: outside programs choose the keys of borrowed blobs.
fn path(key: &str) -> Result<ObjectPath> {
    ObjectPath::parse(key).map_err(|error| Error::caused(ErrorKind::Corrupt, format_args!("blob {key:?}"), error))
}

/// The content of the marker in `folder`, which is created if it is missing.
fn marker(folder: &Path) -> std::io::Result<Vec<u8>> {
    let marker = folder.join(MARKER);
    if !marker.try_exists()? {
        // A link is atomic and never replaces: processes that start together agree, and no marker is half written.
        let id = uuid::Uuid::now_v7().to_string();
        let unfinished = folder.join(format!("{MARKER}.{id}"));
        std::fs::write(&unfinished, &id)?;
        let linked = std::fs::hard_link(&unfinished, &marker);
        std::fs::remove_file(&unfinished)?;
        if let Err(error) = linked
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
    }
    std::fs::read(marker)
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

/// Whether a read failed because of the object, if the rest of the store can be read. Outside programs choose keys, so a
/// key may be too long for a file, or name a file that this process may not read.
fn is_of_object(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    use std::io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, PermissionDenied};
    matches!(error, Store::NotFound { .. } | Store::InvalidPath { .. } | Store::PermissionDenied { .. })
        // The files' store has a private error for a name that it reserves, such as `a#1`.
        || io_kinds(error).next().is_none()
        || io_kinds(error).any(|kind| matches!(kind, InvalidFilename | IsADirectory | NotADirectory | PermissionDenied))
}

fn io_kinds(error: &(dyn std::error::Error + 'static)) -> impl Iterator<Item = std::io::ErrorKind> {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>().map(std::io::Error::kind))
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    io_kinds(error).any(|kind| matches!(kind, StorageFull | QuotaExceeded | FileTooLarge))
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

    #[tokio::test]
    async fn a_store_that_vanished_or_was_replaced_is_unavailable_and_is_not_created_again() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, away) = (parent.path().join("blobs"), parent.path().join("away"));
        let blobs = Blobs::directory(&folder, 4).unwrap();
        let id: JobId = "job".parse().unwrap();
        let put = || blobs.body(&id, Role::Output, Bytes::from_static(b"12345"));
        let stored = put().await.unwrap();
        std::fs::rename(&folder, &away).unwrap();
        assert_eq!(put().await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(blobs.bytes(&stored).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(!folder.exists());
        Blobs::directory(&folder, 4).unwrap();
        assert_eq!(put().await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(blobs.bytes(&stored).await.unwrap_err().kind(), ErrorKind::Unavailable);
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::rename(&away, &folder).unwrap();
        assert_eq!(blobs.bytes(&stored).await.unwrap(), "12345");
        put().await.unwrap();
    }

    #[tokio::test]
    async fn a_borrowed_key_is_the_name_of_its_file_and_jobs_do_not_have_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::directory(folder.path(), 4).unwrap();
        let borrowed = |key: &str| {
            Body::Reference(BlobRef { key: key.to_owned(), size_bytes: None, sha256: None, is_borrowed: true })
        };
        for name in ["IMG[1].txt", "grün.txt", "a~b", "50%", "a #1.txt", "old%7Ename"] {
            std::fs::write(folder.path().join(name), name).unwrap();
            assert_eq!(blobs.bytes(&borrowed(name)).await.unwrap(), name);
        }
        assert_eq!(blobs.bytes(&borrowed("old~name")).await.unwrap(), "old%7Ename");
        for unreadable in ["../etc/passwd", "a~b/c", "a#1", &"x".repeat(300)] {
            assert_eq!(
                blobs.bytes(&borrowed(unreadable)).await.unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{unreadable}"
            );
        }
        for job in 0..600 {
            let id: JobId = format!("job~{job}").parse().unwrap();
            let body = blobs.body(&id, Role::Input, Bytes::from_static(b"12345")).await.unwrap();
            let Body::Reference(blob) = body else { panic!("it is longer than the limit") };
            assert!(folder.path().join(&blob.key).exists());
            blobs.delete(&blob).await.unwrap();
        }
        assert!(std::fs::read_dir(folder.path().join("input")).unwrap().count() <= 256);
    }
}
