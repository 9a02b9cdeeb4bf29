//! The member of a pool's group: the thread that polls librdkafka.
//!
//! It must poll often, or the group removes the consumer. So it never waits for the worker, but only for a command, an
//! event of librdkafka, or a tick.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::command::{Command, Requeuer, Waker};
use super::membership::{Membership, ReceiveRequest};
use queue::{Error, PoolName, Result};

/// How often the thread polls without any event.
const TICK: Duration = Duration::from_millis(250);

/// How often the thread polls while a later action is due.
const SHORT_TICK: Duration = Duration::from_millis(20);

/// How long leaving the group may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The pauses before joining again. With jitter, each pause is up to twice as long. So many workers that lost one
/// server do not all return at once. The longest pause is 2 s: a longer one would be most of the time that jobs wait
/// after an outage.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(LONGEST_PAUSE)
    .without_max_times()
    .with_jitter();

/// After a membership that lasted longer than this, the pauses are short again.
const STABLE_MEMBERSHIP: Duration = Duration::from_secs(20);

pub(super) struct Member {
    cluster: Arc<Cluster>,
    pool: PoolName,
    inbox: Receiver<Command>,
    waker: Waker,
    requeuer: Arc<Requeuer>,
    /// This is dropped when the group has assigned partitions to this member, or when waiting for that is useless.
    joined: Option<oneshot::Sender<()>>,
    receives: VecDeque<ReceiveRequest>,
    stop: Option<StopMode>,
}

#[derive(Clone, Copy)]
enum StopMode {
    Leave,
    #[cfg(test)]
    Kill,
}

impl Member {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        pool: PoolName,
        commands: Sender<Command>,
        inbox: Receiver<Command>,
        joined: oneshot::Sender<()>,
    ) -> Self {
        let waker = Waker::new(commands.clone());
        let requeuer = Arc::new(Requeuer::new(commands));
        Self { cluster, pool, inbox, waker, requeuer, joined: Some(joined), receives: VecDeque::new(), stop: None }
    }

    /// Joins the group again and again, until a command ends it.
    pub(super) fn run(mut self) {
        let mut pauses = PAUSES.build();
        while self.stop.is_none() {
            let joined_at = Instant::now();
            let Err(error) = self.run_membership() else { return };
            if joined_at.elapsed() > STABLE_MEMBERSHIP {
                pauses = PAUSES.build();
            }
            tracing::warn!(pool = %self.pool, %error, "not a member of the group; joining again");
            self.fail_receives(&error);
            self.joined = None;
            self.pause(pauses.next().unwrap_or(LONGEST_PAUSE));
        }
    }

    /// Joins the group. Returns when a command ends the membership. Returns an error if the member must join again.
    fn run_membership(&mut self) -> Result<()> {
        let jobs = self.cluster.topics(&self.pool).into_iter().map(|(topic, _)| topic);
        let results = self.cluster.routes.results_to(&self.pool).map(str::to_owned);
        self.cluster.ensure_topics(jobs.chain(results).collect())?;
        let requeuer = Arc::clone(&self.requeuer);
        let mut membership = Membership::join(&self.cluster, &self.pool, self.waker.clone(), requeuer)?;
        let mut leave_by = None;
        loop {
            membership.poll()?;
            membership.finish_commits();
            membership.check_unanswered_commit()?;
            membership.rebalance()?;
            if membership.has_assignment() {
                self.joined = None;
            }
            match self.stop {
                None => membership.serve_receives(&mut self.receives),
                #[cfg(test)]
                Some(StopMode::Kill) => {
                    membership.abandon();
                    return Ok(());
                }
                Some(StopMode::Leave) => {
                    membership.requeue_all();
                    let deadline = *leave_by.get_or_insert_with(|| Instant::now() + LEAVE_TIMEOUT);
                    if membership.is_committed() || Instant::now() > deadline {
                        return Ok(());
                    }
                }
            }
            membership.commit();
            if let Err(error) = membership.check_stalled_receives(&self.receives) {
                self.fail_receives(&error);
            }
            let tick = if membership.has_timer() || leave_by.is_some() { SHORT_TICK } else { TICK };
            let mut next = self.inbox.recv_timeout(tick);
            while let Ok(command) = next {
                self.handle(command, Some(&mut membership));
                next = self.inbox.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
        }
    }

    fn handle(&mut self, command: Command, membership: Option<&mut Membership>) {
        match (command, membership) {
            (Command::Receive { max, reply }, _) => {
                self.receives.push_back(ReceiveRequest { max, since: Instant::now(), reply });
            }
            (Command::Settle { settled, reply }, Some(membership)) => membership.settle(settled, reply),
            // Without a membership there are no deliveries to settle.
            (Command::Settle { reply, .. }, None) => drop(reply.send(Ok(()))),
            (Command::Requeue(tag), Some(membership)) => membership.requeue(tag),
            (Command::Requeue(_), None) => {}
            (Command::Wake, _) => self.waker.has_woken(),
            (Command::Leave, _) => {
                self.stop.get_or_insert(StopMode::Leave);
            }
            #[cfg(test)]
            (Command::Kill, _) => self.stop = Some(StopMode::Kill),
            #[cfg(test)]
            (Command::Inject(event, reply), membership) => {
                if let Some(membership) = membership {
                    membership.inject(event);
                }
                reply.send(()).unwrap();
            }
        }
    }

    fn fail_receives(&mut self, error: &Error) {
        for receive in self.receives.drain(..) {
            // The caller may have dropped its future.
            drop(receive.reply.send(Err(Error::new(error.kind(), error))));
        }
    }

    fn pause(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while self.stop.is_none()
            && let Ok(command) = self.inbox.recv_deadline(until)
        {
            self.handle(command, None);
        }
    }
}
