//! Runs the same actions on the model and on the backend.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::sample::Index;

use super::action::{Action, AttemptEnd, Progress, Terms};
use super::world::{Claimed, Entry, FAILED, ModelJob, Place, World};
use crate::{Fixture, LEASE, PUBLISH_TIMEOUT, job, pool, soon};
use queue::{
    Backend, Body, Claim, ClaimRequest, Consumer, Delivery, Finish, Finished, Job, JobCounts, JobError, JobRecord,
    JobState, Lease, Outcome, Output, Publication, Requeued, Settlement, Submitted, WorkerId,
};

pub(super) struct Run {
    fixture: Box<dyn Fixture>,
    backend: Backend,
    consumer: Arc<dyn Consumer>,
    world: World,
    held: Vec<HeldDelivery>,
    leases: Vec<Granted>,
    publications: Vec<(usize, Publication)>,
    ended: HashMap<usize, JobRecord>,
    finishes: usize,
}

struct HeldDelivery {
    delivery: Delivery,
    message: usize,
    count: u32,
    is_claimed: bool,
    /// The result is recorded or not needed, so a worker may acknowledge it.
    may_be_acknowledged: bool,
}

struct Granted {
    job: usize,
    lease: Lease,
    /// The delivery it was claimed with.
    message: usize,
    count: u32,
}

impl Run {
    pub(super) async fn start(fixture: Box<dyn Fixture>) -> Self {
        let backend = fixture.open().await;
        let consumer = backend.broker.consumer(&pool()).await.unwrap();
        Self {
            fixture,
            backend,
            consumer,
            world: World::default(),
            held: Vec::new(),
            leases: Vec::new(),
            publications: Vec::new(),
            ended: HashMap::new(),
            finishes: 0,
        }
    }

    pub(super) async fn act(&mut self, action: Action) {
        match action {
            Action::Submit(terms) => self.submit(terms).await,
            Action::Resubmit(index) => self.resubmit(index).await,
            Action::PublishUnknown(terms) => {
                let job = self.add(terms);
                self.publish(job).await;
            }
            Action::Publish(index) => {
                if let Some(job) = pick(index, self.world.jobs.len()) {
                    self.publish(job).await;
                    self.publications.push((job, Publication::first(self.world.jobs[job].job.id.clone())));
                }
            }
            Action::Confirm(index) => {
                if let Some(index) = pick(index, self.publications.len()) {
                    let (job, publication) = self.publications.swap_remove(index);
                    self.world.confirm(job, publication.fence, self.fixture.now());
                    self.backend.ledger.published(&[publication]).await.unwrap();
                }
            }
            Action::Receive(max) => self.receive(max).await,
            Action::Claim(index) => {
                if let Some(index) = pick(index, self.held.len()).filter(|index| !self.held[*index].is_claimed) {
                    self.claim(index).await;
                }
            }
            Action::Begin(index) => {
                if let Some(index) = pick(index, self.leases.len()) {
                    self.begin(index).await;
                }
            }
            Action::Renew(index) => {
                if let Some(index) = pick(index, self.leases.len()) {
                    self.renew(index).await;
                }
            }
            Action::Finish(index, ending) => {
                if let Some(index) = pick(index, self.leases.len()) {
                    self.finish(index, ending).await;
                }
            }
            Action::Acknowledge(index) => {
                if let Some(index) = pick(index, self.held.len()).filter(|index| self.held[*index].may_be_acknowledged)
                {
                    self.settle(index, Settlement::Ack).await;
                }
            }
            Action::RequeueDelivery(index) => {
                if let Some(index) = pick(index, self.held.len()) {
                    self.settle(index, Settlement::Requeue).await;
                }
            }
            Action::Drop(index) => {
                if let Some(index) = pick(index, self.held.len()) {
                    let held = self.held.swap_remove(index);
                    self.world.settle(held.message, held.count, Place::Waiting);
                }
            }
            Action::Cancel(index) => {
                if let Some(job) = pick(index, self.world.jobs.len()) {
                    self.cancel(job).await;
                }
            }
            Action::Requeue(index) => {
                if let Some(job) = pick(index, self.world.jobs.len()) {
                    self.requeue(job).await;
                }
            }
            Action::Due(progress) => self.due(progress).await,
            Action::Advance(seconds) => self.fixture.advance(Duration::from_secs(seconds)).await,
            Action::GiveUp => {
                self.flush().await;
                self.fixture.give_up_on_consumers().await;
                self.world.give_up_on_consumers();
            }
            Action::Crash => self.reopen(true).await,
            Action::Reopen => self.reopen(false).await,
        }
    }

    async fn begin(&mut self, index: usize) {
        let Granted { job, lease, .. } = &self.leases[index];
        let expected = self.world.begin(*job, lease.fence);
        assert_eq!(self.backend.ledger.begin(lease).await.unwrap(), expected);
    }

    async fn renew(&mut self, index: usize) {
        let Granted { job, lease, .. } = &self.leases[index];
        let expected = self.world.renew(*job, lease.fence, self.fixture.now());
        assert_eq!(self.backend.ledger.renew(std::slice::from_ref(lease), LEASE).await.unwrap(), [expected]);
    }

    async fn cancel(&mut self, job: usize) {
        self.world.cancel(job);
        let record = self.backend.ledger.cancel(&self.world.jobs[job].job.id).await.unwrap();
        assert_eq!(record.map(|record| record.state), self.world.jobs[job].entry.as_ref().map(|entry| entry.state));
    }

    async fn requeue(&mut self, job: usize) {
        let expected = self.world.requeue(job, self.fixture.now()).unwrap_or(Requeued::Unknown);
        let id = &self.world.jobs[job].job.id;
        assert_eq!(self.backend.ledger.requeue(id, None).await.unwrap(), expected);
        if matches!(expected, Requeued::Queued { .. }) {
            self.ended.remove(&job);
        }
    }

    fn add(&mut self, terms: Terms) -> usize {
        let number = self.world.jobs.len();
        let job = Job {
            class: terms.class,
            max_attempts: terms.max_attempts,
            deadline_at: terms.deadline_seconds.map(|seconds| self.fixture.now() + Duration::from_secs(seconds)),
            ..job(&*self.fixture, &format!("job-{number}"))
        };
        self.world.jobs.push(ModelJob { job, entry: None, is_published: false });
        number
    }

    async fn submit(&mut self, terms: Terms) {
        let number = self.add(terms);
        let ModelJob { job, entry, .. } = &mut self.world.jobs[number];
        *entry = Some(Entry::open(job, Some(self.fixture.now() + PUBLISH_TIMEOUT)));
        let job = job.clone();
        assert_eq!(self.backend.ledger.submit(&[job]).await.unwrap(), [Submitted::New]);
    }

    async fn resubmit(&mut self, index: Index) {
        let Some(number) = pick(index, self.world.jobs.len()) else { return };
        let ModelJob { job, entry: Some(entry), .. } = &self.world.jobs[number] else { return };
        let answer = self.backend.ledger.submit(std::slice::from_ref(job)).await.unwrap().remove(0);
        let Submitted::Existing { record, publish } = answer else { panic!("{} is known: {answer:?}", job.id) };
        assert_eq!(record.state, entry.state);
        let expected = entry.is_unconfirmed().then_some(entry.fence);
        assert_eq!(publish.as_ref().map(|publication| publication.fence), expected);
        if let Some(publication) = publish {
            self.publish(number).await;
            self.publications.push((number, publication));
        }
    }

    async fn publish(&mut self, job: usize) {
        self.world.publish(job);
        let producer = self.backend.broker.producer().await.unwrap();
        producer.publish(std::slice::from_ref(&self.world.jobs[job].job)).await.unwrap();
    }

    async fn receive(&mut self, max: usize) {
        let expected = self.world.receive(max);
        if expected.is_empty() {
            return;
        }
        // Dropped deliveries are requeued by now.
        self.flush().await;
        let received = soon(self.consumer.receive(max)).await.unwrap();
        assert_eq!(received.len(), expected.len());
        for (delivery, message) in received.into_iter().zip(expected) {
            let (job, count) = (self.world.messages[message].job, self.world.messages[message].deliveries);
            assert_eq!(delivery.job, self.world.jobs[job].job);
            assert_eq!(delivery.redelivered, count > 1);
            self.held.push(HeldDelivery { delivery, message, count, is_claimed: false, may_be_acknowledged: false });
        }
    }

    async fn claim(&mut self, index: usize) {
        let HeldDelivery { delivery, message, count, .. } = &self.held[index];
        let (message, count) = (*message, *count);
        let job = self.world.messages[message].job;
        let expected = self.world.claim(job, delivery.redelivered, self.fixture.now());
        let request = ClaimRequest::new(delivery.job.clone(), delivery.redelivered);
        let (worker, requests) = (WorkerId::new("worker"), vec![request]);
        let answers = self.backend.ledger.claim(&worker, requests.clone(), LEASE).await.unwrap();
        // A repetition, as after a lost answer, changes nothing.
        assert_eq!(self.backend.ledger.claim(&worker, requests, LEASE).await.unwrap(), answers);
        self.held[index].is_claimed = true;
        match answers.into_iter().next().unwrap() {
            Claim::Granted { lease, alone } => {
                assert_eq!(Claimed::Granted { fence: lease.fence, attempt: lease.attempt, alone }, expected);
                self.leases.push(Granted { job, lease, message, count });
            }
            Claim::Ended(state) => {
                assert_eq!(Claimed::Ended(state), expected);
                self.held[index].may_be_acknowledged = true;
            }
            Claim::HeldElsewhere => {
                assert_eq!(Claimed::HeldElsewhere, expected);
                self.held[index].may_be_acknowledged = true;
            }
        }
    }

    async fn finish(&mut self, index: usize, ending: AttemptEnd) {
        let Granted { job, lease, message, count } = self.leases.swap_remove(index);
        self.finishes += 1;
        let text = format!("result {} of {}", self.finishes, lease.id);
        let expected = self.world.finish(job, lease.fence, ending, &text, self.fixture.now());
        let error = JobError { kind: FAILED.to_owned(), message: text.clone() };
        let outcome = match ending {
            AttemptEnd::Succeed => success(&text),
            AttemptEnd::Fail => Outcome::Failed(error),
            AttemptEnd::Retry(seconds) => Outcome::Retry { error, after: Duration::from_secs(seconds) },
            AttemptEnd::Release => Outcome::Released,
        };
        let answers = self.backend.ledger.finish(vec![Finish { lease, outcome }]).await.unwrap();
        assert_eq!(answers.iter().map(Finished::state).collect::<Vec<_>>(), [expected]);
        if expected != Some(JobState::Queued) {
            let its_own = |held: &&mut HeldDelivery| (held.message, held.count) == (message, count);
            if let Some(held) = self.held.iter_mut().find(its_own) {
                held.may_be_acknowledged = true;
            }
        }
    }

    async fn settle(&mut self, index: usize, how: Settlement) {
        let HeldDelivery { delivery, message, count, .. } = self.held.swap_remove(index);
        self.world.settle(message, count, if how == Settlement::Ack { Place::Gone } else { Place::Waiting });
        self.consumer.settle(vec![(delivery, how)]).await.unwrap();
    }

    async fn due(&mut self, progress: Progress) {
        let expected = self.world.take_due(self.fixture.now());
        let given = self.backend.ledger.due(1_000).await.unwrap();
        assert_eq!(given.len(), expected.len());
        for (job, fence) in expected {
            let publication = Publication { id: self.world.jobs[job].job.id.clone(), fence };
            let due = given.iter().find(|due| due.publication == publication).unwrap();
            let ModelJob { job: known, entry, .. } = &self.world.jobs[job];
            let deadline_at = entry.as_ref().and_then(|entry| entry.deadline_at);
            assert_eq!(due.job, Job { deadline_at, ..known.clone() });
            match progress {
                Progress::Takes => {}
                Progress::Publishes => {
                    self.publish(job).await;
                    self.publications.push((job, publication));
                }
                Progress::Confirms => {
                    self.publish(job).await;
                    self.world.confirm(job, fence, self.fixture.now());
                    self.backend.ledger.published(&[publication]).await.unwrap();
                }
            }
        }
    }

    /// Ends the process and starts another one, which holds no delivery and no lease.
    async fn reopen(&mut self, crash: bool) {
        if crash {
            self.fixture.kill(self.backend.clone()).await;
        }
        self.held.clear();
        self.leases.clear();
        let next = self.fixture.open().await;
        let consumer = next.broker.consumer(&pool()).await.unwrap();
        drop(std::mem::replace(&mut self.consumer, consumer));
        if !crash {
            self.flush().await;
        }
        self.backend = next;
        self.fixture.give_up_on_consumers().await;
        self.world.give_up_on_consumers();
    }

    /// Returns when the background writes of this process are done.
    async fn flush(&self) {
        self.backend.roster.leave(&WorkerId::new("nobody")).await.unwrap();
    }

    pub(super) async fn check(&mut self) {
        self.flush().await;
        let depth = self.backend.broker.gauge().await.unwrap().depths(&[pool()]).await.remove(0).unwrap();
        assert_eq!((depth.waiting_by_class, depth.in_flight), (self.world.waiting_by_class(), Some(self.world.held())));
        let open = self.backend.ledger.counts(&[pool()]).await.unwrap()[0];
        assert_eq!(open, self.world.counts());
        for (number, known) in self.world.jobs.iter().enumerate() {
            assert!(self.world.is_accounted_for(number), "{} is open and in no backlog", known.job.id);
            let record = self.backend.ledger.get(&known.job.id).await.unwrap();
            let Some(entry) = &known.entry else {
                assert_eq!(record, None);
                continue;
            };
            let record = record.unwrap();
            assert_eq!((record.state, record.attempts), (entry.state, entry.attempts));
            assert!(record.attempts <= record.max_attempts);
            let history: Vec<_> =
                record.history.iter().map(|attempt| (attempt.number, attempt.error.kind.as_str())).collect();
            assert_eq!(history, entry.history);
            assert_eq!(record.output, entry.output.as_deref().map(output));
            if record.state.has_ended() {
                assert_eq!(self.ended.entry(number).or_insert_with(|| record.clone()), &record);
            }
        }
        let backlog = depth.waiting() + depth.in_flight.unwrap().max(open.leased) + open.retry;
        let is_open =
            |known: &ModelJob| known.is_published && known.entry.as_ref().is_none_or(|entry| !entry.state.has_ended());
        assert!(backlog > 0 || !self.world.jobs.iter().any(is_open));
    }

    /// Without further faults every job must end.
    pub(super) async fn drain(mut self) {
        self.leases.clear();
        let numbers: Vec<usize> = (0..self.held.len()).rev().collect();
        for index in numbers {
            self.settle(index, Settlement::Requeue).await;
        }
        for _ in 0..5 {
            self.fixture.advance(LEASE + PUBLISH_TIMEOUT).await;
            self.due(Progress::Confirms).await;
            while self.world.waiting_by_class() != [0; 3] {
                self.receive(100).await;
                for index in (0..self.held.len()).rev() {
                    self.claim(index).await;
                    while !self.leases.is_empty() {
                        self.finish(0, AttemptEnd::Succeed).await;
                    }
                    self.settle(index, Settlement::Ack).await;
                }
            }
        }
        self.check().await;
        assert_eq!(self.ended.len(), self.world.jobs.len());
        assert_eq!(self.world.held(), 0);
        let open = JobCounts { ended: 0, ..self.backend.ledger.counts(&[pool()]).await.unwrap()[0] };
        assert_eq!(open, JobCounts::default());
        assert!(self.backend.ledger.due(1).await.unwrap().is_empty());
    }
}

fn pick(index: Index, count: usize) -> Option<usize> {
    (count > 0).then(|| index.index(count))
}

fn success(text: &str) -> Outcome {
    Outcome::Succeeded(output(text))
}

fn output(text: &str) -> Output {
    Output { media_type: "text/plain".to_owned(), body: Body::Inline(Bytes::from(text.to_owned())) }
}
