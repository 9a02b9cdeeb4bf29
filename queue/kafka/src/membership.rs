//! What a member of a group has: its partitions, and the deliveries out of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::assigning::{Assigning, Unanswered};
use super::cluster::{CALL_TIMEOUT, Cluster, because, fatal};
use super::commits::{Answer, Commits, Committed, Outcome};
use super::committer::Committer;
use super::consumer::Hold;
use super::context::{Context, Rebalance, answer};
use super::error::failed;
use super::held::{Held, Place};
use super::mark::Mark;
use super::member::{Bell, Receive, unavailable};
use super::partition::{Partition, Taken};
use queue::driver::{Delivery, DeliveryTag, Settlement};
use queue::{Class, PoolName, Result};

/// How long a partition that goes to another consumer waits for what is in our worker's hands: what is settled by then
/// is not repeated. It stops this consumer's fetching meanwhile, so it is short.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(2);

/// How long a class waits for word of what is above it.
const URGENCY_PATIENCE: Duration = Duration::from_secs(1);

/// How long a call waits for a server that is said to be out of reach, before the server is asked.
const TROUBLE_PATIENCE: Duration = Duration::from_secs(2);
/// How long what nobody waits for may go uncommitted: the commit of the next batch that is settled will say it too.
const COMMIT_PATIENCE: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Membership {
    /// Both before the consumer, which is to be the last to go: its destructor leaves the group.
    partitions: BTreeMap<u64, Partition>,
    committer: Committer,
    consumer: Arc<BaseConsumer<Context>>,
    pool: PoolName,
    topics: Vec<(Arc<str>, Class)>,
    bell: Bell,
    held: Held,
    /// How many partitions have been ours: each gets a number of its own.
    partitions_seen: u64,
    commits: Commits,
    /// Since when something is to be committed, whether or not anybody waits for it.
    uncommitted_since: Option<Instant>,
    /// A rebalance that is not answered yet.
    unanswered: Option<Unanswered>,
    has_share: bool,
    is_leaving: bool,
    /// Which partition of a class comes first.
    turn: usize,
    #[cfg(test)]
    is_to_end: bool,
}

impl Membership {
    pub(super) fn join(cluster: &Cluster, pool: &PoolName, bell: Bell, hold: Arc<Hold>) -> Result<Self> {
        let topics = cluster.topics(pool).into_iter().map(|(topic, class)| (Arc::from(topic), class));
        let topics: Vec<(Arc<str>, Class)> = topics.collect();
        let mut consumer = cluster.consumer(pool)?;
        let ring = bell.clone();
        consumer.set_nonempty_callback(move || ring.ring());
        let names: Vec<&str> = topics.iter().map(|(topic, _)| &**topic).collect();
        consumer.subscribe(&names).map_err(|error| failed("subscribe", error))?;
        let consumer = Arc::new(consumer);
        Ok(Self {
            partitions: BTreeMap::new(),
            committer: Committer::start(Arc::clone(&consumer), bell.clone())?,
            consumer,
            pool: pool.clone(),
            topics,
            bell,
            held: Held::new(hold),
            partitions_seen: 0,
            commits: Commits::new(),
            uncommitted_since: None,
            unanswered: None,
            has_share: false,
            is_leaving: false,
            turn: 0,
            #[cfg(test)]
            is_to_end: false,
        })
    }

    /// Lets librdkafka say what it has to say.
    pub(super) fn poll(&mut self) -> Result<()> {
        #[cfg(test)]
        if self.is_to_end {
            return Err(unavailable("a test has ended the membership"));
        }
        loop {
            let told = self.consumer.context().told();
            match self.consumer.poll(Duration::ZERO) {
                None if self.consumer.context().told() == told => return Ok(()),
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(fatal(&self.consumer, error)),
                // The context has heard the reason too: whoever waits for long is told, see `look_after`.
                Some(Err(error)) => tracing::debug!(pool = %self.pool, %error, "the kafka consumer has trouble"),
                Some(Ok(_)) => {
                    // It would be lost. Whoever joins anew starts from what is committed.
                    return Err(unavailable("cannot go on: a record came beside its partition's queue"));
                }
            }
        }
    }

    pub(super) fn hear_commits(&mut self) {
        while let Some(result) = self.committer.result() {
            match self.commits.ended(result) {
                Outcome::Committed(committed) => {
                    self.consumer.context().is_well();
                    for Committed { partition, handed_out } in committed {
                        if let Some(partition) = self.partitions.get_mut(&partition) {
                            partition.is_committed(handed_out);
                        }
                    }
                }
                Outcome::Failed(committed) => self.soil(committed),
            }
        }
        self.commits.expire();
    }

    /// Commits what has changed, once somebody waits for it or it has waited long enough, and no commit is on its way.
    pub(super) fn commit(&mut self) {
        if self.partitions.values().any(|partition| partition.is_dirty) {
            self.uncommitted_since.get_or_insert_with(Instant::now);
        }
        let is_late = self.uncommitted_since.is_some_and(|since| since.elapsed() >= COMMIT_PATIENCE);
        let is_urgent = self.commits.is_waited_for() || self.is_leaving || self.unanswered.is_some();
        if !self.commits.may_send() || !(is_urgent || is_late) {
            return;
        }
        self.uncommitted_since = None;
        let (mut commits, mut committed) = (Vec::new(), Vec::new());
        for (id, partition) in self.partitions.iter_mut().filter(|(_, partition)| partition.is_dirty) {
            let (commit, handed_out) = partition.commit(&self.consumer, self.commits.mark_bytes);
            commits.push(commit);
            committed.push(Committed { partition: *id, handed_out });
        }
        if committed.is_empty() {
            self.commits.nothing_to_send();
        } else {
            self.commits.send(committed);
            self.committer.commit(commits);
        }
    }

    fn soil(&mut self, committed: Vec<Committed>) {
        for Committed { partition, .. } in committed {
            if let Some(partition) = self.partitions.get_mut(&partition) {
                partition.is_dirty = true;
            }
        }
    }

    pub(super) fn is_committed(&self) -> bool {
        !self.commits.is_sent() && self.partitions.values().all(|partition| !partition.is_dirty)
    }

    /// Whether time alone changes something.
    pub(super) fn is_something_due(&self) -> bool {
        self.unanswered.is_some() || self.commits.is_retrying() || self.uncommitted_since.is_some()
    }

    /// The group has said which partitions are ours.
    pub(super) fn has_share(&self) -> bool {
        self.has_share
    }

    /// Follows the group, as far as it can be followed now.
    pub(super) fn rebalance(&mut self) -> Result<()> {
        loop {
            let mut unanswered = match self.unanswered.take() {
                Some(unanswered) => unanswered,
                None => match self.consumer.context().next_rebalance() {
                    None => return Ok(()),
                    Some(Rebalance::Assign(partitions)) => {
                        Unanswered::Assign(Assigning::new(partitions, Instant::now()))
                    }
                    Some(Rebalance::Lost(partitions)) => {
                        tracing::warn!(pool = %self.pool, "the group has taken this consumer for dead; it joins again");
                        Unanswered::Revoke { partitions, deadline: Instant::now() }
                    }
                    Some(Rebalance::Revoke(partitions)) => {
                        self.each_of(&partitions, Partition::begin_to_leave);
                        Unanswered::Revoke { partitions, deadline: Instant::now() + HANDOVER_PATIENCE }
                    }
                },
            };
            let answered = match &mut unanswered {
                Unanswered::Assign(assigning) => self.assign(assigning)?,
                Unanswered::Revoke { partitions, deadline } => self.revoke(partitions, *deadline)?,
            };
            if !answered {
                self.unanswered = Some(unanswered);
                return Ok(());
            }
        }
    }

    /// Takes partitions over, from where the group has committed. `false`: the coordinator cannot say where, yet.
    fn assign(&mut self, assigning: &mut Assigning) -> Result<bool> {
        if !assigning.is_due(Instant::now()) {
            return Ok(false);
        }
        let (action, partitions) = ("take over partitions", &assigning.partitions);
        let committed = match partitions.count() {
            0 => Ok(partitions.clone()),
            _ => self.consumer.committed_offsets(partitions.clone(), CALL_TIMEOUT),
        };
        let all_told =
            |list: TopicPartitionList| list.elements().iter().try_for_each(|at| at.error()).map(|()| list.clone());
        let committed = match committed.and_then(all_told) {
            Ok(committed) => committed,
            Err(error) => {
                let error = because(&self.consumer, action, error);
                tracing::warn!(pool = %self.pool, %error, "the group's offsets are not known; asking again");
                return assigning.put_off(error, Instant::now()).map(|()| false);
            }
        };
        let mut list = TopicPartitionList::new();
        for element in committed.elements() {
            let (topic, number) = (element.topic(), element.partition());
            let Some((topic, class)) = self.topics.iter().find(|(known, _)| **known == *topic) else { continue };
            let queue = self.consumer.split_partition_queue(topic, number);
            let mut queue =
                queue.ok_or_else(|| unavailable(format_args!("cannot {action}: {topic}/{number} has no queue")))?;
            let ring = self.bell.clone();
            queue.set_nonempty_callback(move || ring.ring());
            let at = match element.offset() {
                Offset::Offset(offset) => Some((offset, Mark::from_text(element.metadata()))),
                _ => None,
            };
            let start = at.as_ref().map_or(Offset::Invalid, |(offset, _)| Offset::Offset(*offset));
            list.add_partition_offset(topic, number, start).map_err(|error| failed(action, error))?;
            let partition = Partition::new(Arc::clone(topic), number, *class, queue, at);
            self.partitions_seen += 1;
            self.partitions.insert(self.partitions_seen, partition);
        }
        answer(&self.consumer, true, &list).map_err(|error| failed(action, error))?;
        self.consumer.context().is_well();
        self.has_share = true;
        tracing::debug!(pool = %self.pool, added = list.count(), all = self.partitions.len(), "partitions assigned");
        Ok(true)
    }

    /// Gives partitions up. `false`: not yet, since our worker holds some of theirs.
    fn revoke(&mut self, partitions: &TopicPartitionList, deadline: Instant) -> Result<bool> {
        let (mut is_held, mut is_dirty) = (false, self.commits.is_sent());
        self.each_of(partitions, |partition| {
            is_held |= partition.is_held();
            is_dirty |= partition.is_dirty;
        });
        let is_late = Instant::now() >= deadline || self.consumer.assignment_lost();
        let is_too_late = Instant::now() >= deadline + PROBE_TIMEOUT || self.consumer.assignment_lost();
        if (is_held && !is_late) || (is_dirty && !is_too_late) {
            return Ok(false);
        }
        self.forget(partitions);
        answer(&self.consumer, false, partitions).map_err(|error| failed("give up partitions", error))?;
        tracing::debug!(pool = %self.pool, given_up = partitions.count(), left = self.partitions.len(), "partitions revoked");
        Ok(true)
    }

    /// What is out of these is no longer ours.
    fn forget(&mut self, partitions: &TopicPartitionList) {
        self.partitions.retain(|_, partition| partitions.find_partition(&partition.topic, partition.number).is_none());
        self.held.retain(|id| self.partitions.contains_key(&id));
    }

    fn each_of(&mut self, partitions: &TopicPartitionList, mut act: impl FnMut(&mut Partition)) {
        for element in partitions.elements() {
            let found = self.partitions.values_mut().find(|known| known.is(element.topic(), element.partition()));
            found.into_iter().for_each(&mut act);
        }
    }

    /// Hands out what is there.
    pub(super) fn serve(&mut self, receives: &mut VecDeque<Receive>) {
        while let Some(receive) = receives.pop_front() {
            if receive.reply.is_closed() {
                continue;
            }
            match self.take(receive.max, receive.since) {
                Ok(taken) if taken.is_empty() => {
                    receives.push_front(receive);
                    return;
                }
                Ok(taken) => self.hand_out(taken, receive.reply),
                // Whoever asked may have gone.
                Err(error) => drop(receive.reply.send(Err(failed("receive", error)))),
            }
        }
    }

    /// The most urgent there is. A class waits until those above it are known to have nothing.
    fn take(&mut self, max: usize, since: Instant) -> Result<Vec<(u64, Taken)>, KafkaError> {
        let mut all = Vec::new();
        self.turn = self.turn.wrapping_add(1);
        for class in Class::ALL {
            let mut ids: Vec<u64> = self
                .partitions
                .iter()
                .filter(|(_, known)| known.class == class && !known.is_leaving)
                .map(|(id, _)| *id)
                .collect();
            let turn = self.turn.checked_rem(ids.len()).unwrap_or(0);
            ids.rotate_left(turn);
            for id in &ids {
                let Some(partition) = self.partitions.get_mut(id) else { continue };
                let (taken, result) = partition.take(&self.consumer, &self.pool, max - all.len());
                all.extend(taken.into_iter().map(|taken| (*id, taken)));
                match result {
                    Ok(()) => {}
                    Err(error) if all.is_empty() => return Err(error),
                    Err(error) => tracing::warn!(pool = %self.pool, %error, "cannot receive from a partition"),
                }
                if all.len() == max {
                    return Ok(all);
                }
            }
            for id in &ids {
                let Some(partition) = self.partitions.get_mut(id) else { continue };
                if !partition.is_drained(&self.consumer) {
                    if !all.is_empty() || since.elapsed() < URGENCY_PATIENCE {
                        return Ok(all);
                    }
                    partition.give_up_waiting();
                }
            }
        }
        Ok(all)
    }

    fn hand_out(&mut self, all: Vec<(u64, Taken)>, reply: oneshot::Sender<Result<Vec<Delivery>>>) {
        let mut deliveries = Vec::with_capacity(all.len());
        let mut is_news = false;
        for (id, Taken { log, offset, read, redelivered }) in all {
            is_news |= self.partitions.get(&id).is_none_or(|partition| !partition.is_known_as_handed_out(offset));
            let (tag, holder) = self.held.add(Place { partition: id, log, offset });
            deliveries.push(match &read.unreadable {
                None => Delivery::new(read.job, redelivered, tag, holder),
                Some(why) => Delivery::unreadable(read.job, why, redelivered, tag, holder),
            });
        }
        if is_news {
            self.commits.wait(Answer::Received(deliveries, reply));
        } else {
            // Whoever asked may have gone; then they are given back as they are dropped.
            drop(reply.send(Ok(deliveries)));
        }
    }

    pub(super) fn settle(&mut self, settled: Vec<(DeliveryTag, Settlement)>, reply: oneshot::Sender<Result<()>>) {
        let mut is_news = false;
        for (tag, how) in settled {
            let Some(place) = self.held.remove(tag) else { continue };
            let Some(partition) = self.partitions.get_mut(&place.partition) else { continue };
            match how {
                Settlement::Ack => partition.done(place),
                Settlement::Requeue => partition.give_back(place),
            }
            is_news = true;
        }
        if is_news {
            self.commits.wait(Answer::Settled(reply));
        } else {
            // Whoever asked may have gone.
            drop(reply.send(Ok(())));
        }
    }

    pub(super) fn give_back(&mut self, tag: DeliveryTag) {
        if let Some(place) = self.held.remove(tag)
            && let Some(partition) = self.partitions.get_mut(&place.partition)
        {
            partition.give_back(place);
        }
    }

    /// An error, where somebody has waited for long, and no server answers or the group does not let us in.
    pub(super) fn look_after(&self, receives: &VecDeque<Receive>) -> Result<()> {
        let is_late = receives.front().is_some_and(|receive| receive.since.elapsed() > TROUBLE_PATIENCE);
        let (context, action) = (self.consumer.context(), format!("receive from the pool {}", self.pool));
        if !is_late || context.trouble(&action).is_none() {
            return Ok(());
        }
        match self.consumer.fetch_metadata(Some(&self.topics[0].0), PROBE_TIMEOUT) {
            Ok(_) => {
                context.is_reached();
                context.trouble(&action).map_or(Ok(()), Err)
            }
            Err(error) => Err(because(&self.consumer, &action, error)),
        }
    }

    /// Nothing is handed out any more.
    pub(super) fn give_everything_back(&mut self) {
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        for place in self.held.drain() {
            if let Some(partition) = self.partitions.get_mut(&place.partition) {
                partition.give_back(place);
            }
        }
        self.partitions.values_mut().for_each(Partition::begin_to_leave);
    }

    #[cfg(test)]
    pub(super) fn vanish(self) {
        // Without its destructor the client says no goodbye: it is silent until the group takes it for dead.
        std::mem::forget(self);
    }

    #[cfg(test)]
    pub(super) fn meet(&mut self, event: super::Event) {
        match event {
            super::Event::Ended => self.is_to_end = true,
            super::Event::LogsBegunAnew => self.partitions.values().for_each(|partition| {
                self.consumer.seek(&partition.topic, partition.number, Offset::Beginning, CALL_TIMEOUT).unwrap();
            }),
            super::Event::TakenForDead => {
                self.partitions.clear();
                self.held.retain(|_| false);
                self.consumer.unsubscribe();
                let names: Vec<&str> = self.topics.iter().map(|(topic, _)| &**topic).collect();
                self.consumer.subscribe(&names).unwrap();
            }
        }
    }
}

/// Leaves the group: closing the client does, once it has its answers.
impl Drop for Membership {
    fn drop(&mut self) {
        self.consumer.context().leave();
        loop {
            let unanswered = self.unanswered.take().map(|unanswered| match unanswered {
                Unanswered::Assign(assigning) => (true, assigning.partitions),
                Unanswered::Revoke { partitions, .. } => (false, partitions),
            });
            let next = || match self.consumer.context().next_rebalance()? {
                Rebalance::Assign(partitions) => Some((true, partitions)),
                Rebalance::Revoke(partitions) | Rebalance::Lost(partitions) => Some((false, partitions)),
            };
            let Some((assign, partitions)) = unanswered.or_else(next) else { return };
            if let Err(error) = answer(&self.consumer, assign, &partitions) {
                tracing::warn!(pool = %self.pool, %error, "cannot answer the group before leaving it");
            }
        }
    }
}
