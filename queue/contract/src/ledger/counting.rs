//! Counts of jobs.

use super::*;

fn counted(queued: u64, leased: u64, retry: u64) -> JobCounts {
    JobCounts { queued, leased, retry, ended: 0 }
}

pub async fn counts_are_of_open_jobs_by_state_and_of_ended_jobs(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let jobs = jobs(fixture, 4);
    accept(&*ledger, &jobs).await;
    assert_eq!(counts(&*ledger).await, counted(4, 0, 0));
    let mut leases = Vec::new();
    for job in &jobs[..3] {
        leases.push(claim(&*ledger, job).await);
    }
    assert_eq!(counts(&*ledger).await, counted(1, 3, 0));
    finish(&*ledger, &leases[0], retry(LEASE * 100)).await;
    finish(&*ledger, &leases[1], success("done")).await;
    assert_eq!(counts(&*ledger).await, JobCounts { ended: 1, ..counted(1, 1, 1) });
    // An expired lease is still work to do.
    fixture.advance(LEASE * 2).await;
    assert_eq!(counts(&*ledger).await, JobCounts { ended: 1, ..counted(1, 1, 1) });
    for job in &jobs {
        ledger.cancel(&job.id).await.unwrap();
    }
    assert_eq!(counts(&*ledger).await, JobCounts { ended: 4, ..counted(0, 0, 0) });
}

/// Otherwise a pool could scale to zero after the process that took the due job has died.
pub async fn a_due_job_counts_as_retry_until_its_publication_is_confirmed(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let lease = claim(&*ledger, &job).await;
    finish(&*ledger, &lease, retry(Duration::ZERO)).await;
    let given = due(&*ledger).await.remove(0);
    assert_eq!(counts(&*ledger).await, counted(0, 0, 1));
    ledger.published(&[given.publication]).await.unwrap();
    assert_eq!(counts(&*ledger).await, counted(1, 0, 0));
}

pub async fn every_ending_of_a_job_is_counted_once(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let names = ["succeeds", "fails", "dies", "expires", "cancelled", "killer"];
    let mut jobs = names.map(|id| Job { max_attempts: 1, ..job(fixture, id) });
    jobs[3].deadline_at = Some(fixture.now() + LEASE);
    accept(&*ledger, &jobs).await;
    let [succeeds, fails, dies, expires, cancelled, killer] = &jobs;
    for (job, outcome) in
        [(succeeds, success("done")), (fails, Outcome::Failed(error("its own fault"))), (dies, retry(Duration::ZERO))]
    {
        let lease = claim(&*ledger, job).await;
        finish(&*ledger, &lease, outcome.clone()).await;
        // A repetition is not a second ending.
        assert_eq!(finish(&*ledger, &lease, outcome).await, None);
    }
    assert_eq!(counts(&*ledger).await.ended, 3);
    for _ in 0..2 {
        ledger.cancel(&cancelled.id).await.unwrap();
    }
    assert_eq!(counts(&*ledger).await.ended, 4);
    claim(&*ledger, killer).await;
    fixture.advance(LEASE * 2).await;
    for job in [expires, killer] {
        for _ in 0..2 {
            let answer = claim_as(&*ledger, "another", job, true).await;
            assert!(matches!(answer, Claim::Ended(JobState::Expired | JobState::Dead)), "{answer:?}");
        }
    }
    assert_eq!(counts(&*ledger).await, JobCounts { ended: 6, ..counted(0, 0, 0) });
    assert_eq!(ledger.requeue(&dies.id, None).await.unwrap(), Requeued::Queued { replaced: None });
    assert_eq!(counts(&*ledger).await, JobCounts { ended: 6, ..counted(0, 0, 1) });
    ledger.cancel(&dies.id).await.unwrap();
    assert_eq!(counts(&*ledger).await, JobCounts { ended: 7, ..counted(0, 0, 0) });
}

pub async fn a_deleted_job_stays_counted_as_ended(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let ledger = &*process.ledger;
    let jobs: Vec<_> =
        jobs(fixture, 4).into_iter().map(|job| Job { retention: Duration::from_secs(1), ..job }).collect();
    accept(ledger, &jobs).await;
    for job in &jobs[..3] {
        let lease = claim(ledger, job).await;
        finish(ledger, &lease, Outcome::Failed(error("wrong"))).await;
    }
    assert_eq!(ledger.forget(&jobs[0].id).await.unwrap(), Forgotten::Forgotten(Vec::new()));
    let filter = DeadFilter { pool: None, state: JobState::Failed };
    assert_eq!(ledger.purge_dead(&filter, 1).await.unwrap().jobs, 1);
    fixture.advance(DEAD_RETENTION).await;
    while ledger.purge(100).await.unwrap().is_some() {}
    assert_eq!(ledger.dead(&filter, None, 10).await.unwrap().jobs, []);
    let expected = JobCounts { ended: 3, ..counted(1, 0, 0) };
    assert_eq!(counts(ledger).await, expected);
    // The count is written together with the endings, so it survives every kind of process end.
    fixture.kill(process).await;
    assert_eq!(counts(&*open(fixture).await).await, expected);
}

pub async fn counts_of_a_thousand_pools_come_in_one_call_in_order(fixture: &dyn Fixture) {
    const POOLS: usize = 1_000;
    let ledger = open(fixture).await;
    let pools: Vec<PoolName> = (0..POOLS).map(|number| format!("pool-{number}").parse().unwrap()).collect();
    // Every third pool has no jobs, the others have one or two.
    let of = |number: usize| (0..number % 3).map(move |copy| (number, copy));
    let named = |(number, copy): (usize, usize)| Job {
        pool: pools[number].clone(),
        ..job(fixture, &format!("job-{number}-{copy}"))
    };
    accept(&*ledger, &(0..POOLS).flat_map(of).map(named).collect::<Vec<_>>()).await;
    let ended: JobId = "job-998-0".parse().unwrap();
    ledger.cancel(&ended).await.unwrap();
    let unknown: PoolName = "unknown".parse().unwrap();
    let asked: Vec<_> = pools.iter().rev().chain([&unknown, &pools[998]]).cloned().collect();
    let answers = ledger.counts(&asked).await.unwrap();
    assert_eq!(answers.len(), POOLS + 2);
    for (number, counts) in (0..POOLS).rev().zip(&answers) {
        let ended = u64::from(number == 998);
        let queued = u64::try_from(number % 3).unwrap() - ended;
        assert_eq!(*counts, JobCounts { queued, ended, ..JobCounts::default() }, "pool-{number}");
    }
    assert_eq!(answers[POOLS..], [JobCounts::default(), JobCounts { ended: 1, ..counted(1, 0, 0) }]);
    assert_eq!(ledger.counts(&[]).await.unwrap(), []);
}
