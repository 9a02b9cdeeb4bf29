//! The consumer of a worker, and the task that owns its channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Fuse, FusedFuture};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use super::queues::Source;
use super::session::{ReceiveResult, Session};
use queue::driver::{Consumer, Delivery, DeliveryTag, RequeueOnDrop, Settlement};
use queue::{Error, ErrorKind, PoolName, Result};

/// If a channel closes sooner than this, a new channel would close for the same reason.
const SHORT_SESSION: Duration = Duration::from_secs(1);

/// The number of such channels that one call opens.
const MAX_SHORT_SESSIONS: usize = 3;

/// Sends commands to its supervisor. This task owns the channel, and opens another when the server has closed it.
pub(super) struct RabbitMqConsumer {
    commands: mpsc::UnboundedSender<Command>,
}

enum Command {
    Receive(ReceiveRequest),
    Settle(Vec<(DeliveryTag, Settlement)>, oneshot::Sender<Result<()>>),
    Requeue(DeliveryTag),
    Leave,
}

struct ReceiveRequest {
    max: usize,
    reply: oneshot::Sender<ReceiveResult>,
}

impl RabbitMqConsumer {
    pub(super) fn start(link: &Arc<Link>, pool: &PoolName, sources: Vec<Source>) -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        let requeuer = Arc::new(Requeuer { commands: sender.clone() });
        let supervisor = Arc::new(Supervisor {
            link: Arc::clone(link),
            pool: pool.clone(),
            sources,
            requeuer,
            session: Mutex::default(),
        });
        tokio::spawn(supervise(supervisor, commands));
        Self { commands: sender }
    }

    async fn call<T>(&self, command: Command, reply: oneshot::Receiver<Result<T>>) -> Result<T> {
        // Without `Leave`, which only the destructor sends, the supervisor ends only by a panic.
        let ended = || Error::new(ErrorKind::Ended, "the consumer has ended, and cannot receive again");
        self.commands.send(command).map_err(|_| ended())?;
        reply.await.map_err(|_| ended())?
    }
}

#[async_trait]
impl Consumer for RabbitMqConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        let (reply, answer) = oneshot::channel();
        self.call(Command::Receive(ReceiveRequest { max, reply }), answer).await
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        let settled = deliveries.into_iter().map(|(delivery, settlement)| (delivery.into_tag(), settlement)).collect();
        let (reply, answer) = oneshot::channel();
        self.call(Command::Settle(settled, reply), answer).await
    }
}

impl Drop for RabbitMqConsumer {
    fn drop(&mut self) {
        // Deliveries may live longer than the consumer and keep the command channel open. So the supervisor needs this
        // signal to end.
        let _ = self.commands.send(Command::Leave);
    }
}

/// Requeues deliveries that are dropped.
#[derive(Debug)]
struct Requeuer {
    commands: mpsc::UnboundedSender<Command>,
}

impl RequeueOnDrop for Requeuer {
    fn requeue(self: Arc<Self>, tag: DeliveryTag) {
        // A consumer that has ended has requeued all its deliveries.
        let _ = self.commands.send(Command::Requeue(tag));
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

type RunningReceive = Fuse<BoxFuture<'static, (oneshot::Sender<ReceiveResult>, ReceiveResult)>>;

/// Executes the commands of a consumer until it leaves. Only this task uses the channel, so the order is kept.
async fn supervise(supervisor: Arc<Supervisor>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut requests = VecDeque::new();
    let mut running = RunningReceive::terminated();
    'commands: loop {
        tokio::select! {
            biased;
            command = commands.recv() => {
                let Some(command) = command else { break };
                if !supervisor.handle(command, &mut requests).await {
                    break;
                }
            }
            (reply, received) = &mut running, if !running.is_terminated() => {
                let mut unwanted = reply.send(received).err();
                // That caller has dropped its future, but a new call may wait already.
                while let Ok(command) = commands.try_recv() {
                    if !supervisor.handle(command, &mut requests).await {
                        break 'commands;
                    }
                }
                while let Some(Ok(deliveries)) = unwanted {
                    let Some(ReceiveRequest { max, reply }) = requests.pop_front() else { break };
                    unwanted = match deliveries {
                        deliveries if (1..=max).contains(&deliveries.len()) => reply.send(Ok(deliveries)).err(),
                        // Deliveries that are dropped here are requeued.
                        _ => {
                            requests.push_front(ReceiveRequest { max, reply });
                            None
                        }
                    };
                }
            }
        }
        if running.is_terminated()
            && let Some(ReceiveRequest { max, mut reply }) = requests.pop_front()
        {
            let supervisor = Arc::clone(&supervisor);
            running = async move {
                let received = supervisor.receive(max, &mut reply).await;
                (reply, received)
            }
            .boxed()
            .fuse();
        }
    }
    drop(running);
    let session = supervisor.current();
    if let Some(session) = session
        && session.end()
        && let Err(error) = session.close().await
    {
        tracing::warn!(%error, "cannot close a channel; its deliveries are requeued when its connection ends");
    }
}

struct Supervisor {
    link: Arc<Link>,
    pool: PoolName,
    sources: Vec<Source>,
    requeuer: Arc<Requeuer>,
    session: Mutex<Option<Arc<Session>>>,
}

impl Supervisor {
    /// `false`: the consumer leaves, and no further command is executed.
    async fn handle(&self, command: Command, requests: &mut VecDeque<ReceiveRequest>) -> bool {
        match command {
            Command::Receive(request) => requests.push_back(request),
            Command::Settle(settled, reply) => {
                // The deliveries are settled even if the caller has dropped its future.
                let _ = reply.send(self.settle(&settled).await);
            }
            Command::Requeue(tag) => {
                if let Some(session) = self.current() {
                    session.requeue(tag);
                }
            }
            Command::Leave => return false,
        }
        true
    }

    async fn receive(&self, max: usize, reply: &mut oneshot::Sender<ReceiveResult>) -> ReceiveResult {
        let requeuer: Arc<dyn RequeueOnDrop> = Arc::clone(&self.requeuer) as Arc<dyn RequeueOnDrop>;
        let mut short_sessions = 0;
        while !reply.is_closed() {
            let session = self.open().await?;
            let error = match session.receive(max, &requeuer, reply).await {
                Ok(received) if !received.is_empty() || reply.is_closed() => return Ok(received),
                Ok(_) => {
                    // A queue may be deleted and at once declared again. A server before 4.0 then moves its consumers
                    // to the new queue, but loses their state. It assigns jobs to them and does not send these jobs. It
                    // requeues the jobs only when the channel closes, and no event shows that this is needed. So an
                    // idle channel is replaced, which costs little.
                    if session.has_no_deliveries() {
                        tracing::debug!(pool = %self.pool, "no job for a long time; replacing the channel");
                        self.end(&session);
                    }
                    continue;
                }
                Err(error) => error,
            };
            self.end(&session);
            short_sessions += usize::from(session.opened_at.elapsed() < SHORT_SESSION);
            if short_sessions == MAX_SHORT_SESSIONS {
                return Err(error);
            }
            tracing::warn!(%error, pool = %self.pool, "lost the channel to the broker; opening another");
        }
        Ok(Vec::new())
    }

    async fn settle(&self, settled: &[(DeliveryTag, Settlement)]) -> Result<()> {
        let Some(session) = self.current() else { return Ok(()) };
        match session.settle(settled).await {
            Err(error) if session.is_open() => {
                self.end(&session);
                Err(error)
            }
            Err(error) => {
                tracing::warn!(%error, pool = %self.pool, "lost the channel to the broker; the jobs are requeued");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The open session, or else a new one.
    async fn open(&self) -> Result<Arc<Session>> {
        let number = match &*self.session.lock() {
            Some(session) if session.is_open() => return Ok(Arc::clone(session)),
            Some(session) => session.number() + 1,
            None => 0,
        };
        let session = Arc::new(Session::open(&self.link, &self.pool, &self.sources, number).await?);
        *self.session.lock() = Some(Arc::clone(&session));
        Ok(session)
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.session.lock().clone().filter(|session| session.is_open())
    }

    /// Closes the channel of a session that has failed. Otherwise the channel would always hold its deliveries.
    fn end(&self, session: &Arc<Session>) {
        if !session.end() {
            return;
        }
        let session = Arc::clone(session);
        tokio::spawn(async move {
            if let Err(error) = session.close().await {
                tracing::warn!(%error, "cannot close a channel; its deliveries are requeued when its connection ends");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_panic_of_its_task_a_consumer_has_ended() {
        let (commands, _) = mpsc::unbounded_channel();
        let consumer = RabbitMqConsumer { commands };
        assert_eq!(consumer.receive(1).await.unwrap_err().kind(), ErrorKind::Ended);
        assert_eq!(consumer.settle(Vec::new()).await.unwrap_err().kind(), ErrorKind::Ended);
    }
}
