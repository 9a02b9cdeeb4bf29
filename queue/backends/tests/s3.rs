//! The blob store in a bucket of a real server of S3. `scripts/servers.sh run` starts one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use millrace_backends::{BackendUrls, BlobUrl, open, open_blobs};
use queue::{BlobRef, Blobs, Body, ErrorKind, JobId, Role, Sweep};

const INLINE_BYTES: usize = 4;

/// A store of its own in the bucket of the tests.
fn url() -> String {
    let bucket = std::env::var("MILLRACE_TEST_S3_URL");
    let bucket = bucket.expect("MILLRACE_TEST_S3_URL is not set: run the test with scripts/servers.sh run");
    format!("{bucket}/tests/{}", JobId::generate())
}

fn open_store(url: &str) -> Blobs {
    open_blobs(&url.parse::<BlobUrl>().unwrap(), INLINE_BYTES).unwrap()
}

fn reference(body: &Body) -> &BlobRef {
    let Body::Reference(blob) = body else { panic!("it is longer than {INLINE_BYTES} bytes: {body:?}") };
    blob
}

#[tokio::test]
async fn blobs_are_written_read_copied_and_deleted_in_a_bucket() {
    let (url, id): (_, JobId) = (url(), "job".parse().unwrap());
    let (writer, reader) = (open_store(&url), open_store(&url));
    let output = writer.body(&id, Role::Output, Bytes::from_static(b"12345")).await.unwrap();
    assert_eq!(reader.bytes(&output).await.unwrap(), "12345");
    let borrowed = Body::Reference(BlobRef { is_borrowed: true, ..reference(&output).clone() });
    let copy = reader.delivered(&"next".parse().unwrap(), &borrowed).await.unwrap();
    writer.delete(reference(&output)).await.unwrap();
    writer.delete(reference(&output)).await.unwrap();
    assert_eq!(reader.bytes(&copy).await.unwrap(), "12345");
    assert_eq!(reader.bytes(&output).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(reader.bytes_up_to(&copy, 4).await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(reader.check(&copy, 4).await.unwrap_err().kind(), ErrorKind::Refused);
    reader.check(&copy, 5).await.unwrap();
}

#[tokio::test]
async fn processes_that_start_together_agree_on_the_id_of_a_bucket() {
    let url = url();
    assert_eq!(open_store(&url).existing_id().await.unwrap(), None);
    let id: JobId = "job".parse().unwrap();
    let stores: Vec<Blobs> = (0..8).map(|_| open_store(&url)).collect();
    let writes = stores.iter().map(|store| store.body(&id, Role::Input, Bytes::from_static(b"12345")));
    for body in futures::future::join_all(writes).await {
        let body = body.unwrap();
        for store in &stores {
            assert_eq!(store.bytes(&body).await.unwrap(), "12345");
        }
    }
    let first = stores[0].existing_id().await.unwrap();
    assert!(first.is_some() && open_store(&url).existing_id().await.unwrap() == first);
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_unavailable_and_is_not_created() {
    let blobs = open_store("s3://millrace-missing/a");
    let id: JobId = "job".parse().unwrap();
    let written = blobs.body(&id, Role::Input, Bytes::from_static(b"12345")).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Unavailable);
    let blob = BlobRef { key: "a".to_owned(), size_bytes: None, sha256: None, is_borrowed: true };
    assert_eq!(blobs.bytes(&Body::Reference(blob)).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn old_blobs_of_jobs_without_a_record_are_deleted_from_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let urls = BackendUrls::new(format!("embedded:{}", folder.path().display()).parse().unwrap(), None).unwrap();
    let ledger = open(&urls).await.unwrap().ledger;
    let blobs = open_store(&url());
    blobs.check_ledger(&*ledger).await.unwrap();
    let id: JobId = "a.b~c:d-1".parse().unwrap();
    let orphan = blobs.body(&id, Role::Input, Bytes::from_static(b"12345")).await.unwrap();
    let mut sweep = Sweep::new(ledger, blobs.clone());
    for (days, expected) in [(30, 0), (32, 1)] {
        let (now, mut deleted) = (Timestamp::now() + Duration::from_secs(days * 24 * 3600), 0);
        for _ in 0..Sweep::ROUNDS {
            deleted += sweep.round(now).await.unwrap();
        }
        assert_eq!(deleted, expected, "after {days} days");
    }
    assert_eq!(blobs.bytes(&orphan).await.unwrap_err().kind(), ErrorKind::Corrupt);
}
