//! Deletes blobs to which no record refers any more.

use futures::StreamExt;
use futures::stream;
use queue::{BlobRef, Blobs};
use tracing::Instrument;

use crate::http::problem::Problem;

/// The most blobs that are deleted at a time.
const DELETED_AT_ONCE: usize = 16;

/// Runs `work` to its end, even if the client disconnects.
///
/// axum drops a handler when its client disconnects. If that happened between the deletion of a record and the deletion
/// of its blobs, no record would refer to these blobs.
pub(crate) async fn run_to_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|error| {
        // The panic hook has logged the place and the message.
        tracing::error!(%error, "the work of a request panicked");
        Err(Problem::internal())
    })
}

/// Deletes blobs to which no record refers any more. A failure is only logged, because the blob only uses space.
pub(crate) async fn delete_blobs(blobs: &Blobs, unused: impl IntoIterator<Item = BlobRef>) {
    let delete = async |blob: BlobRef| {
        if let Err(error) = blobs.delete(&blob).await {
            tracing::warn!(%error, blob = blob.key, "cannot delete a blob of a deleted job");
        }
    };
    stream::iter(unused).for_each_concurrent(DELETED_AT_ONCE, delete).await;
}
