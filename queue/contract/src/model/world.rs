//! The expected state: broker and ledger as plain data.

use jiff::Timestamp;

use super::action::AttemptEnd;
use crate::{LEASE, PUBLISH_TIMEOUT};
use queue::driver::{CHECK_AFTER, CHECK_RELEASED_AFTER};
use queue::{Job, JobCounts, JobRecord, JobState, Requeued};

/// The kind of error of an attempt that failed.
pub(super) const FAILED: &str = "model_error";

#[derive(Default)]
pub(super) struct World {
    pub(super) jobs: Vec<ModelJob>,
    /// The messages, in the order of publication.
    pub(super) messages: Vec<Message>,
}

pub(super) struct ModelJob {
    pub(super) job: Job,
    /// `None`: the ledger has no record of it.
    pub(super) entry: Option<Entry>,
    pub(super) is_published: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) state: JobState,
    pub(super) attempts: u32,
    pub(super) fence: u64,
    /// The fence of the publication that was confirmed.
    pub(super) confirmed: Option<u64>,
    pub(super) is_lost: bool,
    /// Whether the attempt has begun: then it counts even if its worker disappears.
    pub(super) is_begun: bool,
    pub(super) due_at: Option<Timestamp>,
    pub(super) deadline_at: Option<Timestamp>,
    /// The number and the kind of error of each failed attempt that counted.
    pub(super) history: Vec<(u32, &'static str)>,
    pub(super) output: Option<String>,
    /// The number of endings.
    pub(super) ended: u64,
}

pub(super) struct Message {
    pub(super) job: usize,
    pub(super) deliveries: u32,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Waiting,
    Held,
    Gone,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    Granted { fence: u64, attempt: u32, alone: bool },
    Ended(JobState),
    HeldElsewhere,
}

impl World {
    pub(super) fn publish(&mut self, job: usize) {
        self.jobs[job].is_published = true;
        self.messages.push(Message { job, deliveries: 0, place: Place::Waiting });
    }

    /// Delivers up to `max` messages in the expected order.
    pub(super) fn receive(&mut self, max: usize) -> Vec<usize> {
        let mut waiting: Vec<usize> =
            (0..self.messages.len()).filter(|seq| self.messages[*seq].place == Place::Waiting).collect();
        waiting.sort_by_key(|seq| (self.jobs[self.messages[*seq].job].job.class, *seq));
        waiting.truncate(max);
        for seq in &waiting {
            self.messages[*seq].place = Place::Held;
            self.messages[*seq].deliveries += 1;
        }
        waiting
    }

    /// Moves a message if this delivery of it is the current one.
    pub(super) fn settle(&mut self, message: usize, delivery: u32, place: Place) {
        let message = &mut self.messages[message];
        if message.place == Place::Held && message.deliveries == delivery {
            message.place = place;
        }
    }

    pub(super) fn give_up_on_consumers(&mut self) {
        for message in self.messages.iter_mut().filter(|message| message.place == Place::Held) {
            message.place = Place::Waiting;
        }
    }

    pub(super) fn waiting_by_class(&self) -> [u64; 3] {
        let mut waiting = [0; 3];
        for message in self.messages.iter().filter(|message| message.place == Place::Waiting) {
            waiting[self.jobs[message.job].job.class as usize] += 1;
        }
        waiting
    }

    pub(super) fn held(&self) -> u64 {
        self.messages.iter().filter(|message| message.place == Place::Held).count() as u64
    }

    pub(super) fn counts(&self) -> JobCounts {
        let mut counts = JobCounts::default();
        for entry in self.jobs.iter().filter_map(|known| known.entry.as_ref()) {
            counts.queued += u64::from(entry.state == JobState::Queued && !entry.was_given_out());
            counts.leased += u64::from(entry.state == JobState::Leased);
            counts.retry += u64::from(entry.state == JobState::Retry || entry.was_given_out());
            counts.ended += entry.ended;
        }
        counts
    }

    /// Whether an accepted job has ended or counts in the backlog.
    pub(super) fn is_accounted_for(&self, job: usize) -> bool {
        let known = &self.jobs[job];
        let in_ledger = known.entry.as_ref().is_some_and(|entry| {
            entry.state.has_ended()
                || matches!(entry.state, JobState::Leased | JobState::Retry)
                || entry.was_given_out()
        });
        let in_broker = self.messages.iter().any(|message| message.job == job && message.place != Place::Gone);
        !known.is_published || in_ledger || in_broker
    }

    pub(super) fn confirm(&mut self, job: usize, fence: u64, now: Timestamp) {
        if let Some(entry) = &mut self.jobs[job].entry
            && (entry.state, entry.fence) == (JobState::Queued, fence)
        {
            entry.confirm(now + CHECK_AFTER);
        }
    }

    pub(super) fn claim(&mut self, job: usize, redelivered: bool, now: Timestamp) -> Claimed {
        let ModelJob { job, entry, .. } = &mut self.jobs[job];
        let entry = entry.get_or_insert_with(|| Entry::open(job, None));
        match entry.state {
            JobState::Queued => {}
            JobState::Leased if !redelivered && entry.due_at.is_some_and(|until| until > now) => {
                return Claimed::HeldElsewhere;
            }
            JobState::Leased => entry.lose_holder(),
            JobState::Retry => return Claimed::HeldElsewhere,
            ended => return Claimed::Ended(ended),
        }
        let over = match (entry.deadline_at.is_some_and(|deadline| deadline < now), entry.attempts >= job.max_attempts)
        {
            (true, _) => Some(JobState::Expired),
            (false, true) => Some(JobState::Dead),
            (false, false) => None,
        };
        if let Some(state) = over {
            entry.end(state);
            return Claimed::Ended(state);
        }
        entry.state = JobState::Leased;
        entry.attempts += 1;
        entry.is_begun = !entry.is_lost;
        entry.fence += 1;
        entry.due_at = Some(now + LEASE);
        Claimed::Granted { fence: entry.fence, attempt: entry.attempts, alone: entry.is_lost }
    }

    pub(super) fn begin(&mut self, job: usize, fence: u64) -> bool {
        self.leased(job, fence).map(|entry| entry.is_begun = true).is_some()
    }

    pub(super) fn renew(&mut self, job: usize, fence: u64, now: Timestamp) -> bool {
        let entry = self.leased(job, fence);
        entry.map(|entry| entry.due_at = Some(now + LEASE)).is_some()
    }

    /// The state afterwards; `None` if the lease is lost.
    pub(super) fn finish(
        &mut self,
        job: usize,
        fence: u64,
        ending: AttemptEnd,
        text: &str,
        now: Timestamp,
    ) -> Option<JobState> {
        let max_attempts = self.jobs[job].job.max_attempts;
        let entry = self.leased(job, fence)?;
        match ending {
            AttemptEnd::Succeed => {
                entry.end(JobState::Succeeded);
                entry.output = Some(text.to_owned());
            }
            AttemptEnd::Fail => {
                entry.remember(FAILED);
                entry.end(JobState::Failed);
            }
            AttemptEnd::Retry(_) if entry.attempts >= max_attempts => {
                entry.remember(FAILED);
                entry.end(JobState::Dead);
            }
            AttemptEnd::Retry(seconds) => {
                entry.remember(FAILED);
                entry.state = JobState::Retry;
                entry.due_at = Some(now + std::time::Duration::from_secs(seconds));
            }
            AttemptEnd::Release => {
                entry.state = JobState::Queued;
                entry.attempts -= 1;
                entry.confirm(now + CHECK_RELEASED_AFTER);
            }
        }
        Some(entry.state)
    }

    pub(super) fn cancel(&mut self, job: usize) {
        if let Some(entry) = &mut self.jobs[job].entry
            && !entry.state.has_ended()
        {
            entry.end(JobState::Cancelled);
        }
    }

    /// The expected answer of the ledger. `None`: the ledger has no record of the job.
    pub(super) fn requeue(&mut self, job: usize, now: Timestamp) -> Option<Requeued> {
        let entry = self.jobs[job].entry.as_mut()?;
        if !matches!(entry.state, JobState::Dead | JobState::Failed) {
            return Some(Requeued::NotDead(entry.state));
        }
        entry.state = JobState::Queued;
        entry.attempts = 0;
        entry.fence += 1;
        entry.due_at = Some(now);
        entry.deadline_at = None;
        Some(Requeued::Queued { replaced: None })
    }

    /// The due jobs with the fences of their publications.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<(usize, u64)> {
        let mut taken = Vec::new();
        for (job, known) in self.jobs.iter_mut().enumerate() {
            if let Some(entry) = &mut known.entry
                && entry.due_at.is_some_and(|due| due <= now)
            {
                if entry.state == JobState::Queued && entry.deadline_at.is_some_and(|deadline| deadline < now) {
                    entry.end(JobState::Expired);
                    continue;
                }
                if entry.state == JobState::Leased {
                    entry.lose_holder();
                }
                entry.state = JobState::Queued;
                entry.fence += 1;
                entry.due_at = Some(now + PUBLISH_TIMEOUT);
                taken.push((job, entry.fence));
            }
        }
        taken
    }

    fn leased(&mut self, job: usize, fence: u64) -> Option<&mut Entry> {
        let entry = self.jobs[job].entry.as_mut()?;
        (entry.state == JobState::Leased && entry.fence == fence).then_some(entry)
    }
}

impl Entry {
    pub(super) fn open(job: &Job, due_at: Option<Timestamp>) -> Self {
        Self {
            state: JobState::Queued,
            attempts: 0,
            fence: 0,
            confirmed: None,
            is_lost: false,
            is_begun: false,
            due_at,
            deadline_at: job.deadline_at,
            history: Vec::new(),
            output: None,
            ended: 0,
        }
    }

    /// Whether no publication of a queued job is confirmed.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.state == JobState::Queued && self.due_at.is_some() && self.confirmed != Some(self.fence)
    }

    /// The broker has a message of this job, but the job is due some time in case the message is lost.
    fn confirm(&mut self, due_at: Timestamp) {
        self.confirmed = Some(self.fence);
        self.due_at = Some(self.deadline_at.map_or(due_at, |deadline| deadline.min(due_at)));
    }

    fn was_given_out(&self) -> bool {
        self.is_unconfirmed() && self.fence > 0
    }

    fn lose_holder(&mut self) {
        self.is_lost = true;
        if self.is_begun {
            self.remember("worker_vanished");
        } else {
            self.attempts -= 1;
        }
    }

    fn remember(&mut self, error: &'static str) {
        self.history.push((self.attempts, error));
        let forgotten = self.history.len().saturating_sub(JobRecord::HISTORY_LIMIT);
        self.history.drain(..forgotten);
    }

    fn end(&mut self, state: JobState) {
        self.state = state;
        self.due_at = None;
        self.ended += 1;
    }
}
