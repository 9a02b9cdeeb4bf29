//! Devices that fail or never return, and a consumer that has ended.

use super::*;

/// An echo model whose instances run `calls` batches, and then do what `then` does.
struct Failing {
    calls: usize,
    then: fn() -> ModelError,
}

struct FailingInstance {
    left: usize,
    then: fn() -> ModelError,
}

impl Model for Failing {
    fn prepare(&self, media_type: &str, body: Bytes) -> Result<Item, JobError> {
        Echo::default().prepare(media_type, body)
    }

    fn present(&self, tensors: Vec<HostTensor>) -> Result<Output, JobError> {
        Echo::default().present(tensors)
    }

    fn max_batch_items(&self) -> usize {
        4
    }

    fn instance(&self) -> Result<Box<dyn Instance>, ModelError> {
        Ok(Box::new(FailingInstance { left: self.calls, then: self.then }))
    }
}

impl Instance for FailingInstance {
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
        self.left = self.left.checked_sub(1).ok_or_else(self.then)?;
        Ok(items.iter().map(|item| item.tensors.clone()).collect())
    }

    fn warm_up(&mut self) -> Result<(), ModelError> {
        self.run(&[]).map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_consumer_has_ended_ends() {
    let bench = Bench::new().await;
    bench.faulty.order(Call::Receive, Fault::Fail, 1);
    bench.faulty.order(Call::Receive, Fault::End, 1);
    let worker = bench.start(Echo::default());
    let error = timeout(PATIENCE, worker).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(&error, WorkerError::Broken { part: "the consumer", .. }), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_device_fails_for_good_ends_and_charges_no_job() {
    let bench = Bench::new().await;
    let jobs: Vec<Job> = (0..1_000)
        .map(|number| Job { id: format!("job-{number}").parse().unwrap(), max_attempts: 1, ..job("one") })
        .collect();
    bench.submit_jobs(jobs.clone()).await;
    let model = Failing { calls: 10, then: || ModelError::new(ModelErrorKind::Device, "the device is lost") };
    let sick = bench.start_named("sick", Arc::new(model), WorkerSettings::default());
    let error = timeout(PATIENCE, sick).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.exit_code(), 71, "{error}");
    let sound = bench.start(Echo::default());
    for job in jobs {
        let records = bench.sound.ledger.watch(&job.id).await.unwrap();
        let last = timeout(PATIENCE, records.collect::<Vec<_>>()).await.unwrap().pop().unwrap().unwrap();
        assert_eq!((last.state, last.attempts), (JobState::Succeeded, 1), "{}", job.id);
    }
    bench.stopped(sound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_batch_never_returns_ends_and_names_its_jobs() {
    let bench = Bench::new().await;
    bench.submit(&["stuck"]).await;
    let settings = WorkerSettings { batch_timeout: service::Period::millis(200), ..WorkerSettings::default() };
    // The warm-up batch returns, the first batch of jobs does not.
    let park = || loop {
        std::thread::park();
    };
    let worker = bench.start_named("stuck", Arc::new(Failing { calls: 1, then: park }), settings);
    let error = timeout(PATIENCE, worker).await.unwrap().unwrap().unwrap_err();
    let WorkerError::Stuck { step, jobs, .. } = &error else { panic!("{error}") };
    assert_eq!((*step, jobs.as_str(), error.exit_code()), ("a batch", "stuck", 70));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_a_device_ends_at_its_deadline() {
    let bench = Bench::new().await;
    let echo = Echo { delay: Duration::from_secs(3), max_items: 1, ..Echo::default() };
    let worker = bench.start(echo);
    bench.submit_jobs(vec![Job { class: Class::Premium, ..job("first") }]).await;
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    while bench.sound.ledger.get(&job("first").id).await.unwrap().unwrap().state != JobState::Leased {
        looks.tick().await;
    }
    let deadline_at = Some(Timestamp::now() + Duration::from_secs(1));
    bench.submit_jobs(vec![Job { deadline_at, ..job("late") }]).await;
    assert_eq!(bench.ended("late").await.state, JobState::Expired);
    assert_eq!(bench.sound.ledger.get(&job("first").id).await.unwrap().unwrap().state, JobState::Leased);
    drop(worker);
}
