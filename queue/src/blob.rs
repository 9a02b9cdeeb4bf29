//! Inputs and outputs that are too big to travel with a job.

mod error;
mod list;
mod owner;
mod pieces;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::timeout;

pub(crate) use self::list::FOLDERS;

use self::error::{failed, is_of_file, is_of_object, kind_of, text_of};
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
    /// The content of the store's marker when this process first saw it.
    marker: Arc<OnceCell<Bytes>>,
    place: Place,
    inline_limit_bytes: usize,
    /// The age from which a blob without a record is an orphan.
    orphan_age: Duration,
    observer: Option<FailureObserver>,
}

/// Where a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a folder, which may vanish, and which a write would create again.
    Folder,
    Server,
    /// There is no store, and nothing is written.
    Nowhere,
}

/// Is called with an operation (`read`, `write`, `copy` or `delete`) that failed because the store is away, full or denies it.
pub type FailureObserver = fn(&'static str, ErrorKind);

/// The least age of an orphan. An outside event may demand a retention of up to 30 days, see `queue/src/event.rs`.
const ORPHAN_AGE: Duration = Duration::from_secs(31 * 24 * 3600);

/// The difference between the age of an orphan and the longest retention. Clocks differ, and a message may wait.
const ORPHAN_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// The object that identifies a store. Its content is a unique id.
const MARKER: &str = "millrace-store";

/// The largest object that every store can copy in one call.
const LARGEST_COPY_BYTES: u64 = 5 << 30;

/// The longest time in which the bytes of a blob arrive. A store that hangs is away.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

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
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            marker: Arc::new(OnceCell::new_with(Some(marker.into()))),
            place: Place::Folder,
            inline_limit_bytes,
            orphan_age: ORPHAN_AGE,
            observer: None,
        })
    }

    /// Blobs as objects of a server. Its marker is read, and created if it is missing, before the first write.
    pub fn of_server(store: Arc<dyn ObjectStore>, inline_limit_bytes: usize) -> Self {
        Self {
            store,
            marker: Arc::default(),
            place: Place::Server,
            inline_limit_bytes,
            orphan_age: ORPHAN_AGE,
            observer: None,
        }
    }

    /// No store: inputs and outputs above the limit are `Refused`. Blobs of other processes are `Unavailable`.
    pub fn none(inline_limit_bytes: usize) -> Self {
        let store = Arc::new(InMemory::new());
        Self {
            store,
            marker: Arc::default(),
            place: Place::Nowhere,
            inline_limit_bytes,
            orphan_age: ORPHAN_AGE,
            observer: None,
        }
    }

    /// The same store, whose failed operations `observer` sees. The failure of one object is not one of the store.
    pub fn with_observer(self, observer: FailureObserver) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// The same store, for pools of which the longest retention is `longest`.
    pub fn with_longest_retention(self, longest: Duration) -> Self {
        Self { orphan_age: ORPHAN_AGE.max(longest.saturating_add(ORPHAN_MARGIN)), ..self }
    }

    /// The age from which a blob without a record is an orphan.
    pub fn orphan_age(&self) -> Duration {
        self.orphan_age
    }

    /// The id of the store in `folder`. `None`: there is no store. Creates nothing.
    pub fn id_of_directory(folder: &Path) -> Option<String> {
        std::fs::read_to_string(folder.join(MARKER)).ok()
    }

    /// The id of the store. `None`: it has none yet. Creates nothing.
    pub async fn existing_id(&self) -> Result<Option<String>> {
        if self.place == Place::Nowhere {
            return Ok(None);
        }
        match self.read_marker().await {
            Ok(id) => Ok(Some(String::from_utf8_lossy(&id).into_owned())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unreadable_marker(&error)),
        }
    }

    /// Compares this store with the one that belongs to `ledger`. The first store that a ledger meets belongs to it. Any
    /// other store is `Incompatible`: its blobs would be missing in other processes. So is no store, if one belongs to it.
    /// Records in the store which ledger uses it.
    pub async fn check_ledger(&self, ledger: &dyn Ledger) -> Result<()> {
        if self.place == Place::Nowhere {
            return match ledger.blob_store(None).await? {
                Some(recorded) => {
                    let message = format!("the blob store of the ledger has the id {recorded}: use it instead of none");
                    Err(Error::new(ErrorKind::Incompatible, message))
                }
                None => Ok(()),
            };
        }
        let found = String::from_utf8_lossy(self.marker().await?);
        match ledger.blob_store(Some(&found)).await? {
            Some(recorded) if recorded != found => Err(Error::new(ErrorKind::Incompatible, other(&found, &recorded))),
            _ => self.record_owner(&ledger.id().await?).await,
        }
    }

    /// Makes a body of `bytes`. Small bytes are inline. Otherwise the body is an object that is durable when this
    /// returns. Each call uses a new name, so that deleting one record never deletes an object of another record.
    pub async fn body(&self, id: &JobId, role: Role, bytes: Bytes) -> Result<Body> {
        if self.is_inline(bytes.len()) {
            return Ok(Body::Inline(bytes));
        }
        self.put_under(id, role, &uuid::Uuid::now_v7().to_string(), bytes).await.inspect_err(self.observe("write"))
    }

    /// Gives a delivered job an input of its own in the store, if the input is big or is the output of another job. The
    /// same job and input give the same object, so the call may be repeated.
    pub async fn delivered(&self, id: &JobId, body: &Body) -> Result<Body> {
        match body {
            // Without a store the message itself stays the only place of its input.
            Body::Inline(bytes) if bytes.len() > self.inline_limit_bytes && self.place != Place::Nowhere => {
                let put = self.put_under(id, Role::Input, &digest(bytes), bytes.clone()).await;
                put.inspect_err(self.observe("write"))
            }
            Body::Reference(blob) if blob.is_borrowed && blob.key.starts_with("output/") => {
                self.copy(id, blob).await.inspect_err(self.observe("copy"))
            }
            body => Ok(body.clone()),
        }
    }

    /// Copies the output of another job, because that output is deleted with its own job. A reference that cannot be
    /// copied is returned unchanged.
    async fn copy(&self, id: &JobId, output: &BlobRef) -> Result<Body> {
        let unchanged = || Ok(Body::Reference(output.clone()));
        if self.place == Place::Nowhere {
            return unchanged();
        }
        let Ok(from) = path(&output.key) else { return unchanged() };
        if output.size_bytes.is_some_and(|bytes| bytes > LARGEST_COPY_BYTES) {
            return unchanged();
        }
        let key = key(Role::Input, id, &digest(output.key.as_bytes()));
        let to = path(&key)?;
        // A repeated copy to a linked file would leave a temporary file.
        if self.store.head(&to).await.is_err() {
            self.check_around_write().await?;
            match self.store.copy(&from, &to).await {
                Ok(()) => self.check_around_write().await?,
                Err(object_store::Error::NotFound { .. }) => return unchanged(),
                Err(error) => return Err(failed("copy", &output.key, error)),
            }
        }
        Ok(Body::Reference(BlobRef { key, is_borrowed: false, ..output.clone() }))
    }

    /// Whether a body of this size is inline.
    pub fn is_inline(&self, bytes: usize) -> bool {
        bytes <= self.inline_limit_bytes
    }

    async fn put_under(&self, id: &JobId, role: Role, name: &str, bytes: Bytes) -> Result<Body> {
        if self.is_inline(bytes.len()) {
            return Ok(Body::Inline(bytes));
        }
        if self.place == Place::Nowhere {
            let (found, limit) = (bytes.len(), self.inline_limit_bytes);
            let message = format!("{found} bytes are more than {limit}, and there is no blob store for them");
            return Err(Error::new(ErrorKind::Refused, message));
        }
        let key = key(role, id, name);
        let (size_bytes, sha256) = (Some(bytes.len() as u64), Some(digest(&bytes)));
        self.check_around_write().await?;
        self.store.put(&path(&key)?, bytes.into()).await.map_err(|error| failed("write", &key, error))?;
        // The store may have vanished since the first check. Then this object may be in another folder.
        self.check_around_write().await?;
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
        self.read(blob, limit_bytes).await.inspect_err(self.observe("read"))
    }

    async fn read(&self, blob: &BlobRef, limit_bytes: u64) -> Result<Bytes> {
        let found = self.find(blob, limit_bytes, GetOptions::default()).await?;
        let bytes = timeout(READ_TIMEOUT, found.bytes()).await.map_err(|_| late(&blob.key))?;
        let bytes = bytes.map_err(|error| failed("read", &blob.key, error))?;
        if blob.sha256.as_ref().is_some_and(|sha256| *sha256 != digest(&bytes)) {
            return Err(differs(&blob.key));
        }
        Ok(bytes)
    }

    /// Like [`Blobs::bytes`], in pieces, so that memory does not bound the size. Returns the number of all bytes first. The
    /// last piece comes only if the digest is right.
    pub async fn stream(&self, body: &Body) -> Result<(u64, BoxStream<'static, Result<Bytes>>)> {
        match body {
            Body::Inline(bytes) => {
                Ok((bytes.len() as u64, stream::once(std::future::ready(Ok(bytes.clone()))).boxed()))
            }
            Body::Reference(blob) => {
                let observe = self.observe("read");
                let found = self.find(blob, u64::MAX, GetOptions::default()).await.inspect_err(observe)?;
                let size_bytes = found.meta.size;
                let pieces = pieces::checked(blob.clone(), found.into_stream());
                Ok((size_bytes, pieces.inspect_err(observe).boxed()))
            }
        }
    }

    /// Checks that a body is there, has its known size, and does not exceed `limit_bytes`. Returns the number of its bytes,
    /// and reads none of them.
    pub async fn check(&self, body: &Body, limit_bytes: u64) -> Result<u64> {
        match body {
            Body::Inline(bytes) => Ok(bytes.len() as u64),
            Body::Reference(blob) => {
                let options = GetOptions { head: true, ..GetOptions::default() };
                Ok(self.find(blob, limit_bytes, options).await.inspect_err(self.observe("read"))?.meta.size)
            }
        }
    }

    /// Deletes a blob. A missing blob is not an error; a borrowed one stays.
    pub async fn delete(&self, blob: &BlobRef) -> Result<()> {
        if blob.is_borrowed {
            return Ok(());
        }
        self.check_place(blob)?;
        // Former versions stored the key of a file with escapes.
        let escaped = (self.place == Place::Folder).then(|| ObjectPath::from(blob.key.as_str()));
        for path in [Some(path(&blob.key)?), escaped].into_iter().flatten() {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed("delete", &blob.key, error)).inspect_err(self.observe("delete")),
            }
        }
        Ok(())
    }

    fn observe(&self, operation: &'static str) -> impl Fn(&Error) + Copy + Send + use<> {
        let observer = self.observer;
        move |error| {
            if let Some(observer) = observer
                && error.kind().is_outage()
            {
                observer(operation, error.kind());
            }
        }
    }

    /// An object of an acceptable size, before its bytes are read.
    async fn find(&self, blob: &BlobRef, limit_bytes: u64, options: GetOptions) -> Result<GetResult> {
        self.check_place(blob)?;
        let key = blob.key.as_str();
        let exact = path(key)?;
        let found = match self.store.get_opts(&exact, options.clone()).await {
            // Former versions stored the key of a file with escapes.
            Err(object_store::Error::NotFound { .. }) if self.place == Place::Folder => {
                self.store.get_opts(&ObjectPath::from(key), options).await
            }
            found => found,
        };
        let found = match found {
            Ok(found) => found,
            Err(error) if is_of_object(&error) || self.place == Place::Folder && is_of_file(&error) => {
                self.check_marker().await?;
                let message = format!("blob {key}: cannot read: {}", text_of(&error));
                return Err(Error::new(ErrorKind::Corrupt, message));
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

    /// Without a store, a blob of an outside program can never be read. Another process wrote any other blob, and a process
    /// with its store can read it.
    fn check_place(&self, blob: &BlobRef) -> Result<()> {
        if self.place != Place::Nowhere {
            return Ok(());
        }
        let kind = if blob.is_borrowed { ErrorKind::Refused } else { ErrorKind::Unavailable };
        Err(Error::new(kind, format_args!("blob {}: this process has no blob store", blob.key)))
    }

    /// A write to a folder that has vanished would create it again. A bucket is never created, so its marker is read once.
    async fn check_around_write(&self) -> Result<()> {
        if self.place == Place::Folder { self.check_marker().await } else { self.marker().await.map(drop) }
    }

    /// An error if the store has vanished, or if another store is in its place.
    async fn check_marker(&self) -> Result<()> {
        let known = self.marker().await?;
        let found = self.read_marker().await.map_err(|error| unreadable_marker(&error))?;
        if found != *known {
            let message = format!("blob store: its marker {MARKER} has changed since this process started");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// The content of the marker when this process first saw it. Creates the marker if it is missing.
    async fn marker(&self) -> Result<&Bytes> {
        self.marker
            .get_or_try_init(|| async {
                match self.read_marker().await {
                    Err(object_store::Error::NotFound { .. }) => {}
                    found => return found,
                }
                let id = uuid::Uuid::now_v7().to_string();
                let options = PutOptions::from(PutMode::Create);
                match self.store.put_opts(&MARKER.into(), id.clone().into(), options).await {
                    Ok(_)
                    | Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                    // A server that cannot create an object only if it is missing.
                    Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                        self.store.put(&MARKER.into(), id.into()).await?;
                    }
                    Err(error) => return Err(error),
                }
                self.read_marker().await
            })
            .await
            .map_err(|error| unreadable_marker(&error))
    }

    async fn read_marker(&self) -> object_store::Result<Bytes> {
        self.store.get(&MARKER.into()).await?.bytes().await
    }
}

/// Without its marker a store is away, whatever else is there.
fn unreadable_marker(error: &object_store::Error) -> Error {
    let kind = match kind_of(error) {
        ErrorKind::Corrupt => ErrorKind::Unavailable,
        kind => kind,
    };
    Error::new(kind, format_args!("blob store: cannot use its marker {MARKER}: {}", text_of(error)))
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

fn late(key: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format_args!("blob {key}: cannot read it within {READ_TIMEOUT:?}"))
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

#[cfg(test)]
mod tests;
