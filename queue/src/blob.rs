//! Inputs and outputs that are too big to travel with a job.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use crate::{BlobRef, Body, Error, ErrorKind, JobId, Ledger, Result};

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

/// The largest object that every store can copy in one call.
const LARGEST_COPY_BYTES: u64 = 5 << 30;

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

    /// The id of the store in `folder`. `None`: there is no store. Creates nothing.
    pub fn id_of_directory(folder: &Path) -> Option<String> {
        std::fs::read_to_string(folder.join(MARKER)).ok()
    }

    /// Compares this store with the one that belongs to `ledger`. The first store that a ledger meets belongs to it. Any
    /// other store is `Incompatible`: its blobs would be missing in other processes.
    pub async fn check_ledger(&self, ledger: &dyn Ledger) -> Result<()> {
        let found = String::from_utf8_lossy(&self.marker);
        match ledger.blob_store(Some(&found)).await? {
            Some(recorded) if recorded != found => Err(Error::new(ErrorKind::Incompatible, other(&found, &recorded))),
            _ => Ok(()),
        }
    }

    /// Makes a body of `bytes`. Small bytes are inline. Otherwise the body is an object that is durable when this
    /// returns. Each call uses a new name, so that deleting one record never deletes an object of another record.
    pub async fn body(&self, id: &JobId, role: Role, bytes: Bytes) -> Result<Body> {
        self.put_under(id, role, &uuid::Uuid::now_v7().to_string(), bytes).await
    }

    /// Gives a delivered job an input of its own in the store, if the input is big or is the output of another job. The
    /// same job and input give the same object, so the call may be repeated.
    pub async fn delivered(&self, id: &JobId, body: &Body) -> Result<Body> {
        match body {
            Body::Inline(bytes) if bytes.len() > self.inline_limit_bytes => {
                self.put_under(id, Role::Input, &digest(bytes), bytes.clone()).await
            }
            Body::Reference(blob) if blob.is_borrowed && blob.key.starts_with("output/") => self.copy(id, blob).await,
            body => Ok(body.clone()),
        }
    }

    /// Copies the output of another job, because that output is deleted with its own job. A reference that cannot be
    /// copied is returned unchanged.
    async fn copy(&self, id: &JobId, output: &BlobRef) -> Result<Body> {
        let unchanged = || Ok(Body::Reference(output.clone()));
        let Ok(from) = path(&output.key) else { return unchanged() };
        if output.size_bytes.is_some_and(|bytes| bytes > LARGEST_COPY_BYTES) {
            return unchanged();
        }
        let key = key(Role::Input, id, &digest(output.key.as_bytes()));
        let to = path(&key)?;
        // A repeated copy to a linked file would leave a temporary file.
        if self.store.head(&to).await.is_err() {
            self.check_marker().await?;
            match self.store.copy(&from, &to).await {
                Ok(()) => {}
                Err(object_store::Error::NotFound { .. }) => return unchanged(),
                Err(error) => return Err(failed("copy", &output.key, error)),
            }
        }
        Ok(Body::Reference(BlobRef { key, is_borrowed: false, ..output.clone() }))
    }

    async fn put_under(&self, id: &JobId, role: Role, name: &str, bytes: Bytes) -> Result<Body> {
        if bytes.len() <= self.inline_limit_bytes {
            return Ok(Body::Inline(bytes));
        }
        let key = key(role, id, name);
        let (size_bytes, sha256) = (Some(bytes.len() as u64), Some(digest(&bytes)));
        // A write would create the folder of the store again if it has vanished.
        self.check_marker().await?;
        self.store.put(&path(&key)?, bytes.into()).await.map_err(|error| failed("write", &key, error))?;
        // The store may have vanished since the first check. Then this object may be in another folder.
        self.check_marker().await?;
        Ok(Body::Reference(BlobRef { key, size_bytes, sha256, is_borrowed: false }))
    }

    /// The bytes of a body, checked against size and digest where these are known.
    pub async fn bytes(&self, body: &Body) -> Result<Bytes> {
        self.bytes_up_to(body, u64::MAX).await
    }

    /// Like [`Blobs::bytes`]. A body above `limit_bytes` is `Refused`, and is not read.
    pub async fn bytes_up_to(&self, body: &Body, limit_bytes: u64) -> Result<Bytes> {
        let blob = match body {
            Body::Inline(bytes) => return Ok(bytes.clone()),
            Body::Reference(blob) => blob,
        };
        let found = self.find(blob, limit_bytes, GetOptions::default()).await?;
        let bytes = found.bytes().await.map_err(|error| failed("read", &blob.key, error))?;
        if blob.sha256.as_ref().is_some_and(|sha256| *sha256 != digest(&bytes)) {
            return Err(differs(&blob.key));
        }
        Ok(bytes)
    }

    /// Checks that a body is there, has its known size, and does not exceed `limit_bytes`. Returns the number of its bytes,
    /// and reads none of them.
    pub async fn check(&self, body: &Body, limit_bytes: u64) -> Result<u64> {
        match body {
            Body::Inline(bytes) => Ok(bytes.len() as u64),
            Body::Reference(blob) => {
                let options = GetOptions { head: true, ..GetOptions::default() };
                Ok(self.find(blob, limit_bytes, options).await?.meta.size)
            }
        }
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

    /// An object of an acceptable size, before its bytes are read.
    async fn find(&self, blob: &BlobRef, limit_bytes: u64, options: GetOptions) -> Result<GetResult> {
        let key = blob.key.as_str();
        let exact = path(key)?;
        let found = match self.store.get_opts(&exact, options.clone()).await {
            // Former versions stored a key with escapes.
            Err(object_store::Error::NotFound { .. }) => self.store.get_opts(&ObjectPath::from(key), options).await,
            found => found,
        };
        let found = match found {
            Ok(found) => found,
            Err(error) if is_of_object(&error) => {
                self.check_marker().await?;
                return Err(Error::caused(ErrorKind::Corrupt, format_args!("blob {key}: cannot read"), error));
            }
            Err(error) => return Err(failed("read", key, error)),
        };
        let bytes = found.meta.size;
        if blob.size_bytes.is_some_and(|size| size != bytes) {
            return Err(differs(key));
        }
        if bytes > limit_bytes {
            let message = format!("blob {key}: its {bytes} bytes are more than {limit_bytes}");
            return Err(Error::new(ErrorKind::Refused, message));
        }
        Ok(found)
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

/// The key of an object. The last digits of its name are evenly spread, so a role has at most 256 folders of about the
/// same size.
fn key(role: Role, id: &JobId, name: &str) -> String {
    format!("{}/{}/{id}.{name}", role.folder(), &name[name.len() - 2..])
}

fn differs(key: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format_args!("blob {key}: size or digest differs from its reference"))
}

fn other(found: &str, recorded: &str) -> String {
    format!(
        "this blob store has the id {found}, but the one of the ledger has the id {recorded}: use that store; to \
         use this one instead, without the blobs of that one, write {recorded} into its object {MARKER}"
    )
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
mod tests;
