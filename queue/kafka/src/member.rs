//! A member of a pool's group: the thread that polls librdkafka, whatever the worker does.
//!
//! It must poll often, or the group takes the consumer for dead; so it never waits for the worker, only for a command, a
//! word from librdkafka, or a tick.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::consumer::{Command, Hold};
use super::membership::Membership;
use queue::driver::Delivery;
use queue::{Error, ErrorKind, PoolName, Result};

/// How often it looks when nothing is said.
const TICK: Duration = Duration::from_millis(250);

/// How often it looks when something is due.
const SHORT_TICK: Duration = Duration::from_millis(20);

/// How long leaving may take.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Member {
    cluster: Arc<Cluster>,
    pool: PoolName,
    inbox: Receiver<Command>,
    bell: Bell,
    hold: Arc<Hold>,
    /// Told once the group has given us our share, or there is no use in waiting for it.
    joined: Option<oneshot::Sender<()>>,
    receives: VecDeque<Receive>,
    ending: Option<Ending>,
}

/// A call that waits for deliveries.
pub(super) struct Receive {
    pub(super) max: usize,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<Vec<Delivery>>>,
}

#[derive(Clone, Copy)]
enum Ending {
    Leave,
    #[cfg(test)]
    Vanish,
}

/// Wakes the member from librdkafka's threads, once until it has woken.
#[derive(Clone)]
pub(super) struct Bell {
    commands: Sender<Command>,
    has_rung: Arc<AtomicBool>,
}

impl Bell {
    pub(super) fn ring(&self) {
        if !self.has_rung.swap(true, Ordering::AcqRel) {
            // A member that has ended needs no waking.
            drop(self.commands.send(Command::Wake));
        }
    }
}

impl Member {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        pool: PoolName,
        commands: Sender<Command>,
        inbox: Receiver<Command>,
        joined: oneshot::Sender<()>,
    ) -> Self {
        let bell = Bell { commands: commands.clone(), has_rung: Arc::default() };
        let hold = Arc::new(Hold::new(commands));
        Self { cluster, pool, inbox, bell, hold, joined: Some(joined), receives: VecDeque::new(), ending: None }
    }

    pub(super) fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while self.ending.is_none() {
            let joined_at = Instant::now();
            let Err(error) = self.take_part() else { return };
            if joined_at.elapsed() > LONGEST_PAUSE * 4 {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(pool = %self.pool, %error, "no member of the group; joining again");
            self.refuse(&error);
            self.joined = None;
            self.pause(jittered(pause));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Joins the group and stays in it until told to end, or until nothing but joining anew helps.
    fn take_part(&mut self) -> Result<()> {
        let jobs = self.cluster.topics(&self.pool).into_iter().map(|(topic, _)| topic);
        let results = self.cluster.routes.results_to(&self.pool).map(str::to_owned);
        self.cluster.ensure_topics(jobs.chain(results).collect())?;
        let mut membership = Membership::join(&self.cluster, &self.pool, self.bell.clone(), Arc::clone(&self.hold))?;
        let mut leave_by = None;
        loop {
            membership.poll()?;
            membership.hear_commits();
            membership.rebalance()?;
            if membership.has_share() {
                self.joined = None;
            }
            match self.ending {
                None => membership.serve(&mut self.receives),
                #[cfg(test)]
                Some(Ending::Vanish) => {
                    membership.vanish();
                    return Ok(());
                }
                Some(Ending::Leave) => {
                    membership.give_everything_back();
                    let deadline = *leave_by.get_or_insert_with(|| Instant::now() + LEAVE_PATIENCE);
                    if membership.is_committed() || Instant::now() > deadline {
                        return Ok(());
                    }
                }
            }
            membership.commit();
            if let Err(error) = membership.look_after(&self.receives) {
                self.refuse(&error);
            }
            let tick = if membership.is_something_due() || leave_by.is_some() { SHORT_TICK } else { TICK };
            let mut next = self.inbox.recv_timeout(tick);
            while let Ok(command) = next {
                self.follow(command, Some(&mut membership));
                next = self.inbox.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
        }
    }

    fn follow(&mut self, command: Command, membership: Option<&mut Membership>) {
        match (command, membership) {
            (Command::Receive { max, reply }, _) => {
                self.receives.push_back(Receive { max, since: Instant::now(), reply });
            }
            (Command::Settle { settled, reply }, Some(membership)) => membership.settle(settled, reply),
            // Without a membership nothing is held: everything is passed over.
            (Command::Settle { reply, .. }, None) => drop(reply.send(Ok(()))),
            (Command::GiveBack(tag), Some(membership)) => membership.give_back(tag),
            (Command::GiveBack(_), None) => {}
            (Command::Wake, _) => self.bell.has_rung.store(false, Ordering::Release),
            (Command::Leave, _) => {
                self.ending.get_or_insert(Ending::Leave);
            }
            #[cfg(test)]
            (Command::Vanish, _) => self.ending = Some(Ending::Vanish),
            #[cfg(test)]
            (Command::Meet(event, reply), membership) => {
                if let Some(membership) = membership {
                    membership.meet(event);
                }
                reply.send(()).unwrap();
            }
        }
    }

    /// Answers everybody who waits.
    fn refuse(&mut self, error: &Error) {
        for receive in self.receives.drain(..) {
            // Whoever asked may have gone.
            drop(receive.reply.send(Err(Error::new(error.kind(), error))));
        }
    }

    fn pause(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while self.ending.is_none()
            && let Ok(command) = self.inbox.recv_deadline(until)
        {
            self.follow(command, None);
        }
    }
}

/// Half of it, and up to as much again by chance: many workers that lost one server do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish() >> 32;
    pause / 2 + pause.mul_f64(chance as f64 / f64::from(u32::MAX)) / 2
}

/// A member that goes on without its group says so.
pub(super) fn unavailable(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, why)
}
