//! Tests of the blob store in a folder.

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
async fn without_a_store_large_bodies_are_refused_and_blobs_of_other_processes_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (none, store) = (Blobs::none(4), Blobs::directory(folder.path(), 4).unwrap());
    let id: JobId = "job".parse().unwrap();
    let (small, big) = (Bytes::from_static(b"1234"), Bytes::from_static(b"12345"));
    assert_eq!(none.body(&id, Role::Input, small.clone()).await.unwrap(), Body::Inline(small));
    let error = none.body(&id, Role::Output, big.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.to_string(), "5 bytes are more than 4, and there is no blob store for them");
    // A message from outside is as large as its broker allows.
    assert_eq!(none.delivered(&id, &Body::Inline(big.clone())).await.unwrap(), Body::Inline(big.clone()));

    let stored = store.body(&id, Role::Output, big).await.unwrap();
    let Body::Reference(blob) = &stored else { panic!("{stored:?}") };
    assert_eq!(none.bytes(&stored).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(none.delete(blob).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let borrowed = Body::Reference(BlobRef { is_borrowed: true, ..blob.clone() });
    assert_eq!(none.delivered(&id, &borrowed).await.unwrap(), borrowed);
    assert_eq!(none.bytes(&borrowed).await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(none.existing_id().await.unwrap(), None);
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
    let borrowed =
        |key: &str| Body::Reference(BlobRef { key: key.to_owned(), size_bytes: None, sha256: None, is_borrowed: true });
    for name in ["IMG[1].txt", "grün.txt", "a~b", "50%", "a #1.txt", "old%7Ename"] {
        std::fs::write(folder.path().join(name), name).unwrap();
        assert_eq!(blobs.bytes(&borrowed(name)).await.unwrap(), name);
    }
    assert_eq!(blobs.bytes(&borrowed("old~name")).await.unwrap(), "old%7Ename");
    for unreadable in ["../etc/passwd", "a~b/c", "a#1", &"x".repeat(300)] {
        assert_eq!(blobs.bytes(&borrowed(unreadable)).await.unwrap_err().kind(), ErrorKind::Corrupt, "{unreadable}");
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

#[tokio::test]
async fn a_job_whose_input_is_the_output_of_another_job_has_its_own_copy() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    let (first, second): (JobId, JobId) = ("first".parse().unwrap(), "second".parse().unwrap());
    let output = blobs.body(&first, Role::Output, Bytes::from_static(b"12345")).await.unwrap();
    let Body::Reference(output) = output else { panic!("it is longer than the limit") };
    let borrowed = Body::Reference(BlobRef { is_borrowed: true, ..output.clone() });
    let copy = blobs.delivered(&second, &borrowed).await.unwrap();
    assert_eq!(blobs.delivered(&second, &borrowed).await.unwrap(), copy);
    blobs.delete(&output).await.unwrap();
    // A message that is delivered again finds the copy, although the output is gone.
    assert_eq!(blobs.delivered(&second, &borrowed).await.unwrap(), copy);
    assert_eq!(blobs.bytes(&copy).await.unwrap(), "12345");
    let Body::Reference(copied) = &copy else { panic!("{copy:?}") };
    blobs.delete(copied).await.unwrap();
    assert_eq!(blobs.bytes(&copy).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(blobs.delivered(&second, &borrowed).await.unwrap(), borrowed);
    for key in ["outside/1", "output/../1"] {
        let outside = Body::Reference(BlobRef { key: key.to_owned(), is_borrowed: true, ..output.clone() });
        assert_eq!(blobs.delivered(&second, &outside).await.unwrap(), outside);
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    let sparse = std::fs::File::create(folder.path().join("huge")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let body =
        |size_bytes| Body::Reference(BlobRef { key: "huge".to_owned(), size_bytes, sha256: None, is_borrowed: true });
    let kind = |result: Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(blobs.bytes_up_to(&body(None), 1 << 20).await.map(drop)), ErrorKind::Refused);
    assert_eq!(kind(blobs.check(&body(None), 1 << 20).await.map(drop)), ErrorKind::Refused);
    blobs.check(&body(None), 1 << 40).await.unwrap();
    // Its size differs from the reference.
    assert_eq!(kind(blobs.bytes(&body(Some(1))).await.map(drop)), ErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_is_lost_if_the_store_vanishes_while_objects_are_written() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, away) = (parent.path().join("blobs"), parent.path().join("away"));
    let blobs = Blobs::directory(&folder, 4).unwrap();
    let id: JobId = "job".parse().unwrap();
    for _ in 0..50 {
        let (first, mut is_first) = tokio::sync::mpsc::channel(1);
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (blobs, id, first) = (blobs.clone(), id.clone(), first.clone());
            writers.spawn(async move {
                let mut stored = Vec::new();
                while let Ok(body) = blobs.body(&id, Role::Output, Bytes::from_static(b"12345")).await {
                    first.try_send(()).ok();
                    stored.push(body);
                }
                stored
            });
        }
        is_first.recv().await.unwrap();
        std::fs::rename(&folder, &away).unwrap();
        let stored = writers.join_all().await.concat();
        // A write that was under way may have created the folder again.
        drop(std::fs::remove_dir_all(&folder));
        std::fs::rename(&away, &folder).unwrap();
        for body in &stored {
            assert_eq!(blobs.bytes(body).await.unwrap(), "12345");
        }
    }
}

#[tokio::test]
async fn a_blob_comes_in_pieces_and_the_last_one_only_if_the_digest_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let stored = blobs.body(&"job".parse().unwrap(), Role::Input, bytes.clone().into()).await.unwrap();
    let (size, pieces) = blobs.stream(&stored).await.unwrap();
    let pieces: Vec<Bytes> = pieces.map(Result::unwrap).collect().await;
    assert!(pieces.len() > 1 && pieces.concat() == bytes);
    assert_eq!(size, 3_000_000);

    let (size, small) = blobs.stream(&Body::Inline(Bytes::from_static(b"123"))).await.unwrap();
    assert_eq!((size, small.map(Result::unwrap).collect::<Vec<_>>().await.concat()), (3, b"123".to_vec()));

    let Body::Reference(blob) = stored else { panic!("{stored:?}") };
    let damaged = Body::Reference(BlobRef { sha256: Some(digest(b"other bytes")), ..blob.clone() });
    let pieces: Vec<_> = blobs.stream(&damaged).await.unwrap().1.collect().await;
    assert_eq!(pieces.last().unwrap().as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    let read: usize = pieces.iter().flatten().map(Bytes::len).sum();
    assert!(read < bytes.len(), "the last piece is held back");
    let wrong_size = Body::Reference(BlobRef { size_bytes: Some(1), ..blob });
    assert_eq!(blobs.stream(&wrong_size).await.map(drop).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn failures_of_the_store_are_observed_and_those_of_one_object_are_not() {
    static SEEN: std::sync::Mutex<Vec<(&str, ErrorKind)>> = std::sync::Mutex::new(Vec::new());
    let parent = tempfile::tempdir().unwrap();
    let (folder, away) = (parent.path().join("blobs"), parent.path().join("away"));
    let blobs = Blobs::directory(&folder, 4).unwrap();
    let blobs = blobs.with_observer(|operation, kind| SEEN.lock().unwrap().push((operation, kind)));
    let id: JobId = "job".parse().unwrap();
    let big = Body::Inline(Bytes::from_static(b"12345"));
    let stored = blobs.delivered(&id, &big).await.unwrap();
    let Body::Reference(blob) = &stored else { panic!("{stored:?}") };
    let missing = Body::Reference(BlobRef { key: "missing".to_owned(), ..blob.clone() });
    blobs.bytes(&missing).await.unwrap_err();
    blobs.bytes_up_to(&stored, 1).await.unwrap_err();
    assert_eq!(*SEEN.lock().unwrap(), []);

    std::fs::rename(&folder, &away).unwrap();
    blobs.body(&id, Role::Output, Bytes::from_static(b"12345")).await.unwrap_err();
    blobs.delivered(&id, &big).await.unwrap_err();
    blobs.bytes(&stored).await.unwrap_err();
    blobs.check(&stored, 5).await.unwrap_err();
    assert!(blobs.stream(&stored).await.is_err());
    let operations = ["write", "write", "read", "read", "read"];
    assert_eq!(*SEEN.lock().unwrap(), operations.map(|operation| (operation, ErrorKind::Unavailable)));
}
