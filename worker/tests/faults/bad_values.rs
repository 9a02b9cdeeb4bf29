//! One value that the ledger or the broker cannot take blocks no other job.

use queue::ErrorKind;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_the_ledger_cannot_record_ends_its_job_and_blocks_no_other() {
    let bench = Bench::new().await;
    // The result fails in its group and alone. Then the error of the job is recorded.
    bench.faulty.order_for_job(Call::Finish, &job("bad").id, ErrorKind::Corrupt, 2);
    bench.submit(&["good", "bad", "fine"]).await;
    let worker = bench.start(Echo::with_faults());
    for body in ["good", "fine"] {
        assert_eq!(bench.ended(body).await.state, JobState::Succeeded);
    }
    let bad = bench.ended("bad").await;
    assert_eq!((bad.state, bad.error.unwrap().kind.as_str()), (JobState::Failed, "output_unwritable"));
    bench.stopped(worker).await;
    assert_eq!((bench.in_broker().await, bench.faulty.left_for_jobs(Call::Finish)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_ledger_can_never_end_does_not_hold_the_results_of_others() {
    let bench = Bench::new().await;
    bench.faulty.order_for_job(Call::Finish, &job("bad").id, ErrorKind::Refused, usize::MAX);
    bench.submit(&["bad", "good"]).await;
    let worker = bench.start(Echo::with_faults());
    assert_eq!(bench.ended("good").await.state, JobState::Succeeded);
    bench.stop.cancel();
    timeout(PATIENCE, worker).await.unwrap().unwrap().unwrap();
    // The worker has given it up: its lease expires.
    assert_eq!(bench.sound.ledger.get(&job("bad").id).await.unwrap().unwrap().state, JobState::Leased);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_claimed_does_not_hold_those_that_were_received_with_it() {
    let bench = Bench::new().await;
    bench.faulty.order_for_job(Call::Claim, &job("bad").id, ErrorKind::Corrupt, usize::MAX);
    bench.submit(&["good", "bad", "fine"]).await;
    let worker = bench.start(Echo::with_faults());
    for body in ["good", "fine"] {
        assert_eq!(bench.ended(body).await.state, JobState::Succeeded);
    }
    bench.stopped(worker).await;
    assert_eq!(bench.sound.ledger.get(&job("bad").id).await.unwrap().unwrap().state, JobState::Queued);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_that_cannot_be_published_or_read_blocks_no_other() {
    let mut bench = Bench::new().await;
    let publishing = Publishing(bench.sound.broker.clone(), Arc::default());
    bench.flawed = bench.faulty.wrap(Backend { broker: Arc::new(publishing.clone()), ..bench.sound.clone() });
    bench.faulty.order_for_job(Call::Announce, &job("bad").id, ErrorKind::Corrupt, usize::MAX);
    bench.faulty.order_for_job(Call::Get, &job("cancelled").id, ErrorKind::Corrupt, usize::MAX);
    bench.submit(&["good", "bad", "cancelled"]).await;
    bench.sound.ledger.cancel(&job("cancelled").id).await.unwrap().unwrap();
    let worker = bench.start(Echo::with_faults());
    assert_eq!(bench.ended("bad").await.state, JobState::Succeeded);
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    let settled = async {
        while bench.in_broker().await > 0 {
            looks.tick().await;
        }
    };
    timeout(PATIENCE, settled).await.unwrap();
    assert_eq!(publishing.published(), [("good".to_owned(), JobState::Succeeded)]);
    bench.stopped(worker).await;
}
