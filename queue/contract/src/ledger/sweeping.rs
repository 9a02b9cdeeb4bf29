//! The deletion of blobs that belong to no record.

use super::*;
use jiff::Timestamp;
use queue::{Blobs, Role, Sweep};

pub async fn a_ledger_has_one_id_in_every_process(fixture: &dyn Fixture) {
    let (first, second) = (open(fixture).await, open(fixture).await);
    let id = first.id().await.unwrap();
    assert!(!id.is_empty());
    for ledger in [first, second] {
        assert_eq!(ledger.id().await.unwrap(), id);
    }
}

pub async fn a_sweep_deletes_the_old_blobs_of_jobs_without_a_record_and_no_others(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    blobs.check_ledger(&*ledger).await.unwrap();
    let put =
        async |id: &str, role| blobs.body(&id.parse().unwrap(), role, Bytes::from_static(b"12345")).await.unwrap();
    let input = Input { media_type: "x/y".to_owned(), body: put("done", Role::Input).await };
    let done = Job { input, ..job(fixture, "done") };
    accept(&*ledger, &[done.clone(), job(fixture, "open")]).await;
    let lease = claim(&*ledger, &done).await;
    let output = Output { media_type: "x/y".to_owned(), body: put("done", Role::Output).await };
    finish(&*ledger, &lease, Outcome::Succeeded(output.clone())).await;
    // A rejected output of a job with a record goes after its record.
    let kept = [done.input.body.clone(), output.body, put("open", Role::Output).await];
    let orphans = [put("a.b~c:d-1", Role::Input).await, put("unknown", Role::Output).await];
    let foreign = folder.path().join("input/00/photo.jpg");
    std::fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    std::fs::write(&foreign, "of another program").unwrap();

    let sweep = async |now: Timestamp| {
        let mut sweep = Sweep::new(ledger.clone(), blobs.clone());
        let mut deleted = 0;
        for _ in 0..Sweep::ROUNDS {
            deleted += sweep.round(now).await.unwrap();
        }
        deleted
    };
    let (now, margin) = (Timestamp::now() + blobs.orphan_age(), Duration::from_secs(3600));
    assert_eq!(sweep(now - margin).await, 0);
    assert_eq!(sweep(now + margin).await, 2);
    for orphan in &orphans {
        assert!(blobs.bytes(orphan).await.is_err(), "{orphan:?}");
    }
    for kept in &kept {
        assert_eq!(blobs.bytes(kept).await.unwrap(), "12345");
    }
    assert!(foreign.exists());
    // Without its record the other blobs of a job are orphans too.
    ledger.forget(&done.id).await.unwrap();
    assert_eq!(sweep(now + margin).await, 2);
    assert_eq!(blobs.bytes(&kept[2]).await.unwrap(), "12345");
}
