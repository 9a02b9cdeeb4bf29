//! Inputs in the blob store: too big, of a suspect, or of another job.

use super::*;
use queue::BlobRef;

fn stored(id: &str, body: Body) -> Job {
    Job { input: Input { media_type: "text/plain".to_owned(), body }, ..job_with_id(id) }
}

fn job_with_id(id: &str) -> Job {
    Job { id: id.parse().unwrap(), ..job("big") }
}

async fn ended(bench: &Bench, id: &str) -> JobRecord {
    let id = id.parse().unwrap();
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    let ended = async {
        loop {
            match bench.sound.ledger.get(&id).await.unwrap() {
                Some(record) if record.state.has_ended() => return record,
                _ => looks.tick().await,
            };
        }
    };
    timeout(PATIENCE, ended).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_above_the_limit_fails_its_job_and_is_not_read() {
    let bench = Bench::new().await;
    let blobs = bench.blobs();
    // A sparse file that would not fit into memory.
    std::fs::File::create(bench.folder.path().join("blobs/huge")).unwrap().set_len(1 << 42).unwrap();
    let huge = BlobRef { key: "huge".to_owned(), size_bytes: None, sha256: None, is_borrowed: true };
    let (long, short) = ("x".repeat(INLINE_BYTES + 1), "y".repeat(INLINE_BYTES));
    let long = blobs.body(&job("long").id, Role::Input, long.into()).await.unwrap();
    let jobs = [("huge", Body::Reference(huge)), ("long", long), ("short", Body::Inline(short.into()))];
    bench.submit_jobs(jobs.into_iter().map(|(id, body)| stored(id, body)).collect()).await;
    let max_input = service::ByteSize::bytes(INLINE_BYTES as u64);
    let worker = bench.start_with(Echo::with_faults(), WorkerSettings { max_input, ..WorkerSettings::default() });
    for id in ["huge", "long"] {
        let record = ended(&bench, id).await;
        assert_eq!((record.state, record.attempts), (JobState::Failed, 1), "{id}");
        assert_eq!(record.error.unwrap().kind, "bad_input", "{id}");
    }
    assert_eq!(ended(&bench, "short").await.state, JobState::Succeeded);
    bench.stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_of_a_suspect_is_read_only_after_its_attempt_has_begun() {
    let bench = Bench::new().await;
    let blobs = bench.blobs();
    let long: Bytes = "long".repeat(INLINE_BYTES).into();
    let body = blobs.body(&job("big").id, Role::Input, long.clone()).await.unwrap();
    let suspect = stored("big", body);
    bench.sound.ledger.submit(std::slice::from_ref(&suspect)).await.unwrap();
    let request = ClaimRequest::new(suspect, false);
    let vanished = WorkerId::new("vanished");
    bench.sound.ledger.claim(&vanished, vec![request], Duration::from_millis(1)).await.unwrap();
    // Damaged bytes of the right size fail the job only if they are read.
    let Some(Input { body: Body::Reference(blob), .. }) =
        bench.sound.ledger.input(&job_with_id("big").id).await.unwrap()
    else {
        panic!("its input is a blob")
    };
    let file = bench.folder.path().join("blobs").join(&blob.key);
    std::fs::write(&file, vec![b'?'; long.len()]).unwrap();
    bench.faulty.order(Call::Begin, Fault::Fail, 1);
    let worker = bench.start(Echo::with_faults());
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    let begun = async {
        while bench.faulty.left(Call::Begin) > 0 {
            looks.tick().await;
        }
    };
    timeout(PATIENCE, begun).await.unwrap();
    std::fs::write(&file, &long).unwrap();
    let record = ended(&bench, "big").await;
    assert_eq!(record.state, JobState::Succeeded);
    assert_eq!(blobs.bytes(output(&record)).await.unwrap(), long);
    bench.stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_keeps_its_input_when_the_job_that_produced_it_is_deleted() {
    let bench = Bench::new().await;
    let blobs = bench.blobs();
    // A job that succeeds loses its input, so this one fails after its input was read.
    let long: Bytes = "fail:input".repeat(INLINE_BYTES).into();
    let output = blobs.body(&"first".parse().unwrap(), Role::Output, long.clone()).await.unwrap();
    let Body::Reference(output) = output else { panic!("it is longer than {INLINE_BYTES} bytes") };
    let second = stored("second", Body::Reference(BlobRef { is_borrowed: true, ..output.clone() }));
    bench.sound.broker.producer().await.unwrap().publish(&[second]).await.unwrap();
    let worker = bench.start(Echo::with_faults());
    let record = ended(&bench, "second").await;
    assert_eq!((record.state, record.error.unwrap().kind.as_str()), (JobState::Failed, "bad_input"));
    blobs.delete(&output).await.unwrap();
    let input = bench.sound.ledger.input(&"second".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(blobs.bytes(&input.body).await.unwrap(), long);
    bench.stopped(worker).await;
}
