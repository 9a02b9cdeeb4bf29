//! The bytes of a blob in pieces, checked against its digest.

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::error::failed;
use super::{READ_TIMEOUT, differs, late};
use crate::{BlobRef, Result};

struct Pieces {
    blob: BlobRef,
    bytes: BoxStream<'static, object_store::Result<Bytes>>,
    digest: Sha256,
    /// The last piece that was read. It is held back until the digest of all pieces is known to be right, because a
    /// client that has all bytes looks for no error.
    held: Option<Bytes>,
    ended: bool,
}

/// The pieces of a blob. A piece that does not arrive within the time of a whole blob is `Unavailable`.
pub(super) fn checked(
    blob: BlobRef,
    bytes: BoxStream<'static, object_store::Result<Bytes>>,
) -> BoxStream<'static, Result<Bytes>> {
    let pieces = Pieces { blob, bytes, digest: Sha256::new(), held: None, ended: false };
    stream::try_unfold(pieces, |mut pieces| async move { Ok(pieces.next().await?.map(|piece| (piece, pieces))) })
        .boxed()
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            let key = self.blob.key.as_str();
            let piece = timeout(READ_TIMEOUT, self.bytes.try_next()).await.map_err(|_| late(key))?;
            match piece.map_err(|error| failed("read", key, error))? {
                Some(piece) => {
                    self.digest.update(&piece);
                    if let Some(before) = self.held.replace(piece) {
                        return Ok(Some(before));
                    }
                }
                None => {
                    self.ended = true;
                    let digest = hex::encode(std::mem::take(&mut self.digest).finalize());
                    if self.blob.sha256.as_ref().is_some_and(|sha256| *sha256 != digest) {
                        return Err(differs(key));
                    }
                }
            }
        }
        Ok(self.held.take())
    }
}
