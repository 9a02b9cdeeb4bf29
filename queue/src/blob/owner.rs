//! The ledger that a store belongs to. A second ledger with the same store would take the blobs of the first for orphans.

use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode, PutOptions};

use super::{Blobs, Place, failed};
use crate::Result;

/// The object with the id of the ledger that uses the store.
const OWNER: &str = "millrace-ledger";

/// The content of [`OWNER`] if several ledgers use the store.
const SHARED: &str = "shared";

impl Blobs {
    /// Records that `ledger` uses the store. Every process does so after its start, long before its blobs are old.
    pub(super) async fn record_owner(&self, ledger: &str) -> Result<()> {
        let refused = |error| failed("write", OWNER, error);
        if self.owner().await?.is_none() {
            self.check_around_write().await?;
            let options = PutOptions::from(PutMode::Create);
            match self.store.put_opts(&OWNER.into(), ledger.to_owned().into(), options).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                // A server that cannot create an object only if it is missing.
                Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                    self.store.put(&OWNER.into(), ledger.to_owned().into()).await.map_err(refused)?;
                }
                Err(error) => return Err(refused(error)),
            }
        }
        match self.owner().await? {
            Some(owner) if owner == ledger => return Ok(()),
            Some(owner) if owner == SHARED => {}
            _ => {
                self.check_around_write().await?;
                self.store.put(&OWNER.into(), SHARED.into()).await.map_err(refused)?;
            }
        }
        tracing::warn!(
            "another ledger uses this blob store too, so blobs without a job are not deleted; if it is gone for good, \
             delete the store's object {OWNER} (in a folder, the file of that name)"
        );
        Ok(())
    }

    /// Whether `ledger` alone uses the store. Only then a blob without a record of a job is an orphan.
    pub(crate) async fn is_owned_by(&self, ledger: &str) -> Result<bool> {
        if self.place == Place::Folder {
            self.check_marker().await?;
        }
        Ok(self.owner().await?.is_some_and(|owner| owner == ledger))
    }

    async fn owner(&self) -> Result<Option<Bytes>> {
        match self.store.get(&OWNER.into()).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|error| failed("read", OWNER, error)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read", OWNER, error)),
        }
    }
}
