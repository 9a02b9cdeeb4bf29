//! Taking jobs and settling them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Fuse, FusedFuture};
use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use super::queues::Source;
use super::session::{Reply, Session};
use queue::driver::{Consumer, Delivery, DeliveryTag, RequeueOnDrop, Settlement};
use queue::{Error, ErrorKind, PoolName, Result};

/// A channel that does not even live that long has a reason of its own to be closed.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// How many channels of a short life one call tries.
const SHORT_LIVES: usize = 3;

/// Asks its supervisor, a task that has the channel to itself and opens another when the server closed it.
pub(super) struct RabbitMqConsumer {
    commands: mpsc::UnboundedSender<Command>,
}

enum Command {
    Receive(Request),
    Settle(Vec<(DeliveryTag, Settlement)>, oneshot::Sender<Result<()>>),
    GiveBack(DeliveryTag),
    Leave,
}

struct Request {
    max: usize,
    reply: oneshot::Sender<Reply>,
}

impl RabbitMqConsumer {
    pub(super) fn start(link: &Arc<Link>, pool: &PoolName, sources: Vec<Source>) -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        let holder = Arc::new(Hold { commands: sender.clone() });
        let taker =
            Arc::new(Taker { link: Arc::clone(link), pool: pool.clone(), sources, holder, session: Mutex::default() });
        tokio::spawn(supervise(taker, commands));
        Self { commands: sender }
    }

    async fn ask<T>(&self, command: Command, reply: oneshot::Receiver<Result<T>>) -> Result<T> {
        let ended = || Error::new(ErrorKind::Unavailable, "the consumer has ended");
        self.commands.send(command).map_err(|_| ended())?;
        reply.await.map_err(|_| ended())?
    }
}

#[async_trait]
impl Consumer for RabbitMqConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Receive(Request { max, reply }), answer).await
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        let settled = deliveries.into_iter().map(|(delivery, how)| (delivery.into_tag(), how)).collect();
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Settle(settled, reply), answer).await
    }
}

impl Drop for RabbitMqConsumer {
    fn drop(&mut self) {
        // Deliveries may outlive the consumer, so the end of the commands would come too late.
        let _ = self.commands.send(Command::Leave);
    }
}

/// What a consumer's deliveries know of it.
#[derive(Debug)]
struct Hold {
    commands: mpsc::UnboundedSender<Command>,
}

impl RequeueOnDrop for Hold {
    fn requeue(self: Arc<Self>, tag: DeliveryTag) {
        // A consumer that is gone has given everything back.
        let _ = self.commands.send(Command::GiveBack(tag));
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

type Taking = Fuse<BoxFuture<'static, (oneshot::Sender<Reply>, Reply)>>;

/// Does what the consumer asks for until it leaves. Everything said on the channel is said from here, in order.
async fn supervise(taker: Arc<Taker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut requests = VecDeque::new();
    let mut taking = Taking::terminated();
    'living: loop {
        tokio::select! {
            biased;
            command = commands.recv() => {
                let Some(command) = command else { break };
                if !taker.obey(command, &mut requests).await {
                    break;
                }
            }
            (reply, taken) = &mut taking, if !taking.is_terminated() => {
                let mut taken = reply.send(taken).err();
                // Nobody waits for it any more, but somebody may wait anew.
                while let Ok(command) = commands.try_recv() {
                    if !taker.obey(command, &mut requests).await {
                        break 'living;
                    }
                }
                while let Some(Ok(deliveries)) = taken {
                    let Some(Request { max, reply }) = requests.pop_front() else { break };
                    taken = match deliveries {
                        deliveries if (1..=max).contains(&deliveries.len()) => reply.send(Ok(deliveries)).err(),
                        // What is dropped here is given back.
                        _ => {
                            requests.push_front(Request { max, reply });
                            None
                        }
                    };
                }
            }
        }
        if taking.is_terminated()
            && let Some(Request { max, mut reply }) = requests.pop_front()
        {
            let taker = Arc::clone(&taker);
            taking = async move {
                let taken = taker.take(max, &mut reply).await;
                (reply, taken)
            }
            .boxed()
            .fuse();
        }
    }
    drop(taking);
    let session = taker.current();
    if let Some(session) = session
        && session.end()
        && let Err(error) = session.close().await
    {
        tracing::warn!(%error, "a consumer could not say that it leaves; what it held comes again with its connection's end");
    }
}

struct Taker {
    link: Arc<Link>,
    pool: PoolName,
    sources: Vec<Source>,
    holder: Arc<Hold>,
    session: Mutex<Option<Arc<Session>>>,
}

impl Taker {
    /// `false`: there is nothing more to do.
    async fn obey(&self, command: Command, requests: &mut VecDeque<Request>) -> bool {
        match command {
            Command::Receive(request) => requests.push_back(request),
            Command::Settle(settled, reply) => {
                // Who asked may have gone; it is settled all the same.
                let _ = reply.send(self.settle(&settled).await);
            }
            Command::GiveBack(tag) => {
                if let Some(session) = self.current() {
                    session.give_back(tag);
                }
            }
            Command::Leave => return false,
        }
        true
    }

    async fn take(&self, max: usize, reply: &mut oneshot::Sender<Reply>) -> Reply {
        let holder: Arc<dyn RequeueOnDrop> = Arc::clone(&self.holder) as Arc<dyn RequeueOnDrop>;
        let mut short_lives = 0;
        while !reply.is_closed() {
            let session = self.open().await?;
            let error = match session.take(max, &holder, reply).await {
                Ok(taken) if !taken.is_empty() || reply.is_closed() => return Ok(taken),
                Ok(_) => {
                    // A server before 4.0 that sees a queue deleted and declared in one breath has its consumers go on at
                    // the new one, but forgets their state, and with it what it gives them. Only a channel's end brings
                    // that back, and nothing tells that it is so. An idle channel costs little to replace.
                    if session.holds_nothing() {
                        tracing::debug!(pool = %self.pool, "nothing has come for long; replacing the channel");
                        self.end(&session);
                    }
                    continue;
                }
                Err(error) => error,
            };
            self.end(&session);
            short_lives += usize::from(session.opened_at.elapsed() < SHORT_LIFE);
            if short_lives == SHORT_LIVES {
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
                tracing::warn!(%error, pool = %self.pool, "lost the channel to the broker; what it held comes again");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The session that is open, or another one.
    async fn open(&self) -> Result<Arc<Session>> {
        let number = match &*self.session() {
            Some(session) if session.is_open() => return Ok(Arc::clone(session)),
            Some(session) => session.number() + 1,
            None => 0,
        };
        let session = Arc::new(Session::open(&self.link, &self.pool, &self.sources, number).await?);
        *self.session() = Some(Arc::clone(&session));
        Ok(session)
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.session().clone().filter(|session| session.is_open())
    }

    /// Makes sure that nothing of a session that went wrong is held for ever: it comes again when its channel closes.
    fn end(&self, session: &Arc<Session>) {
        if !session.end() {
            return;
        }
        let session = Arc::clone(session);
        tokio::spawn(async move {
            if let Err(error) = session.close().await {
                tracing::warn!(%error, "cannot close a channel; what it held comes again with its connection's end");
            }
        });
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Option<Arc<Session>>> {
        // Every change under it is a single call, so a panic cannot leave it half-changed.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
