//! Watches, which wait for the end of a job.

use super::*;

pub async fn a_watch_ends_with_the_job(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let mut watch = ledger.watch(&job.id).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().state, JobState::Queued);
    assert!(poll!(watch.next()).is_pending());
    let lease = claim(&*ledger, &job).await;
    finish(&*ledger, &lease, success("done")).await;
    let seen: Vec<JobRecord> = soon(watch.map(|record| record.unwrap()).collect()).await;
    assert_eq!(seen.last(), Some(&get(&*ledger, &job).await));
}

pub async fn a_watch_returns_an_ending_that_another_process_wrote(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let jobs = jobs(fixture, 100);
    accept(&*one, &jobs).await;
    let rounds = async {
        for job in &jobs {
            let watch = one.watch(&job.id).await.unwrap();
            another.cancel(&job.id).await.unwrap();
            let last = watch.map(|record| record.unwrap()).collect::<Vec<_>>().await.pop();
            assert_eq!(last.unwrap().state, JobState::Cancelled);
        }
    };
    soon(rounds).await;
}

pub async fn a_watch_of_an_ended_job_ends_at_once(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    ledger.cancel(&job.id).await.unwrap();
    let watch = ledger.watch(&job.id).await.unwrap();
    let seen: Vec<JobRecord> = soon(watch.map(|record| record.unwrap()).collect()).await;
    assert_eq!(seen, [get(&*ledger, &job).await]);
}

pub async fn a_watch_of_an_unknown_job_is_empty(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let mut watch = ledger.watch(&"unknown".parse().unwrap()).await.unwrap();
    assert!(soon(watch.next()).await.is_none());
}

pub async fn each_of_many_watches_returns_the_ending_of_its_own_job(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let jobs = jobs(fixture, 50);
    accept(&*one, &jobs).await;
    let mut watches = Vec::new();
    for job in jobs.iter().chain(&jobs) {
        watches.push(one.watch(&job.id).await.unwrap());
    }
    for job in jobs.iter().rev() {
        let lease = claim(&*another, job).await;
        finish(&*another, &lease, success(job.id.as_str())).await;
    }
    for (job, watch) in jobs.iter().chain(&jobs).zip(watches) {
        let last = soon(watch.map(|record| record.unwrap()).collect::<Vec<_>>()).await.pop().unwrap();
        assert_eq!((&last.id, last.output), (&job.id, Some(output(job.id.as_str()))));
    }
}

pub async fn a_dropped_watch_does_not_disturb_others(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let dropped = ledger.watch(&job.id).await.unwrap();
    let kept = ledger.watch(&job.id).await.unwrap();
    drop(dropped);
    ledger.cancel(&job.id).await.unwrap();
    let last = soon(kept.map(|record| record.unwrap()).collect::<Vec<_>>()).await.pop().unwrap();
    assert_eq!(last.state, JobState::Cancelled);
}

pub async fn a_watch_does_not_outlive_its_process(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let job = job(fixture, "job");
    accept(&*process.ledger, std::slice::from_ref(&job)).await;
    let mut watch = process.ledger.watch(&job.id).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().state, JobState::Queued);
    assert!(poll!(watch.next()).is_pending());
    fixture.kill(process).await;
    let rest: Vec<_> = soon(watch.collect()).await;
    assert!(rest.into_iter().flatten().all(|record| record.state == JobState::Queued));
}
