//! Upkeep deletes the blobs of jobs without a record.
#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use millrace_queue_embedded::EmbeddedFixture;
use queue::{Blobs, Role, Sweep, Upkeep};
use queue_contract::Fixture;

/// An old orphan in each folder of a store, because a sweep begins at any of them.
fn orphans(store: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for number in 0..Sweep::ROUNDS {
        let role = if number < Sweep::ROUNDS / 2 { "input" } else { "output" };
        let last = format!("{:02x}", number % (Sweep::ROUNDS / 2));
        let path = store.join(role).join(&last).join(format!("orphan.01890a5d-ac96-774b-bcce-b302099a80{last}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "12345").unwrap();
        let old = SystemTime::now() - Duration::from_secs(60 * 24 * 3600);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        paths.push(path);
    }
    paths
}

#[tokio::test]
async fn the_process_with_the_upkeep_deletes_orphans() {
    let fixture = EmbeddedFixture::start();
    let backend = fixture.open().await;
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    blobs.check_ledger(&*backend.ledger).await.unwrap();
    let orphans = orphans(folder.path());
    let producer = backend.broker.producer().await.unwrap();
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn(Upkeep { ledger: backend.ledger, producer, blobs }.run(stop.clone()));
    let one_is_deleted = async {
        while orphans.iter().all(|path| path.exists()) {
            tokio::task::yield_now().await;
        }
    };
    queue_contract::soon(one_is_deleted).await;
    stop.cancel();
    upkeep.await.unwrap();
    // A round looks at one folder only.
    assert_eq!(orphans.iter().filter(|path| !path.exists()).count(), 1);
}

#[tokio::test]
async fn a_store_that_two_ledgers_use_keeps_its_orphans() {
    let (first, second) = (EmbeddedFixture::start(), EmbeddedFixture::start());
    let (first, second) = (first.open().await.ledger, second.open().await.ledger);
    let folder = tempfile::tempdir().unwrap();
    let open =
        || Blobs::directory(folder.path(), 4).unwrap().with_longest_retention(Duration::from_secs(45 * 24 * 3600));
    let blobs = open();
    let deleted = async |ledger: &Arc<dyn queue::Ledger>, days: u64| {
        let mut sweep = Sweep::new(Arc::clone(ledger), blobs.clone());
        let (now, mut deleted) = (Timestamp::now() + Duration::from_secs(days * 24 * 3600), 0);
        for _ in 0..Sweep::ROUNDS {
            deleted += sweep.round(now).await.unwrap();
        }
        deleted
    };
    blobs.body(&"orphan".parse().unwrap(), Role::Input, "12345".into()).await.unwrap();
    // No ledger has met the store yet.
    assert_eq!(deleted(&first, 60).await, 0);
    blobs.check_ledger(&*first).await.unwrap();
    open().check_ledger(&*second).await.unwrap();
    for ledger in [&first, &second] {
        assert_eq!(deleted(ledger, 60).await, 0);
    }
    // A ledger that is there already does not take the store back.
    blobs.check_ledger(&*first).await.unwrap();
    assert_eq!(deleted(&first, 60).await, 0);
    std::fs::remove_file(folder.path().join("millrace-ledger")).unwrap();
    blobs.check_ledger(&*first).await.unwrap();
    // The longest retention of a pool is 45 days.
    assert_eq!(deleted(&first, 45).await, 0);
    assert_eq!(deleted(&first, 47).await, 1);
}
