//! Reads all pools in the background: what it costs grows with brokers and pools, not with who asks.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use policy::history::History;
use policy::reading::{Measured, Reading};
use queue::{Depth, Gauge, JobCounts, Ledger, PoolName, Roster, WorkerRecord};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::failure::{Failure, Unknown};
use crate::metrics::{self, PoolMetrics};
use crate::settings::ScalerSettings;

/// So many pools are asked for in one call. Fewer would cost more calls, more would hold up who asks meanwhile.
const PIECE_POOLS: usize = 250;

/// The calls of a turn begin one after the other in this time, or in three quarters of a shorter interval: at once they would
/// take the processor, and the server's, from everybody else. None waits for another to end.
const LONGEST_SPREAD: Duration = Duration::from_secs(1);

/// How long to wait before the ledger is asked again to tell of arrivals, when it could not be asked at all.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Where the numbers come from.
#[derive(Clone)]
pub struct Sources {
    /// What is in the broker.
    pub gauge: Arc<dyn Gauge>,
    /// What is with the ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Which workers are alive.
    pub roster: Arc<dyn Roster>,
}

/// What is known of a pool.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The readings that succeeded.
    pub(crate) history: History,
    /// Whether the history knows what workers had measured before it began, or that none had.
    has_recalled: bool,
    /// Why the reading after the last of those failed, if it did.
    pub(crate) failure: Option<Failure>,
}

impl Seen {
    /// The history, unless its last reading is missing or older than `max_age`: an answer from nothing would be 0, and 0
    /// stops workers.
    pub(crate) fn fresh(&self, now: Duration, max_age: Duration) -> Result<&History, Unknown> {
        let unknown = |age| Unknown { age, failure: self.failure.clone() };
        let reading = self.history.latest().ok_or_else(|| unknown(None))?;
        let age = now.saturating_sub(reading.taken_at);
        if age > max_age { Err(unknown(Some((age, max_age)))) } else { Ok(&self.history) }
    }

    /// Takes over what the roster remembers; nobody waits for it, since a reading follows.
    fn recall(&mut self, earlier: Option<queue::Measured>) -> bool {
        self.history.recall(earlier.map_or_else(Measured::default, Measured::from));
        self.has_recalled = true;
        false
    }

    /// Adds a reading; whether those who wait for changes should hear of it.
    fn add(&mut self, reading: Reading) -> bool {
        let latest = self.history.latest();
        if latest.is_some_and(|latest| latest.taken_at >= reading.taken_at) {
            // A look that began earlier has come in later.
            return false;
        }
        let changed = self.failure.is_some() || !latest.is_some_and(|latest| latest.is_as_active_as(&reading));
        self.history.add(reading);
        self.failure = None;
        changed
    }

    /// Whether there is a reason to look again at once when something is said to have arrived.
    fn is_idle(&self) -> bool {
        self.history.latest().is_none_or(|reading| reading.backlog() == 0)
    }
}

/// What is known of every pool, and the tasks that read it; dropped, they stop.
pub(crate) struct Sampler {
    pools: Arc<BTreeMap<PoolName, Watched>>,
    clock: Clock,
    _tasks: JoinSet<()>,
}

/// The clock of the readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// The time.
    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

struct Watched {
    seen: watch::Sender<Seen>,
    metrics: PoolMetrics,
}

/// One look at the backends, shared by the tasks that look.
#[derive(Clone)]
struct Reader {
    pools: Arc<BTreeMap<PoolName, Watched>>,
    sources: Sources,
    clock: Clock,
    within: Duration,
    /// Whether the roster has failed to say what it remembers, and not done so since.
    cannot_recall: Arc<AtomicBool>,
}

impl Sampler {
    /// Starts to read all pools at the interval of the settings, and those that are idle as soon as something arrives.
    pub(crate) fn start(
        pools: impl IntoIterator<Item = PoolName>,
        sources: &Sources,
        settings: &ScalerSettings,
    ) -> Self {
        let watched = |pool: PoolName| {
            let metrics = PoolMetrics::new(&pool);
            (pool, Watched { seen: watch::Sender::new(Seen::default()), metrics })
        };
        let pools: Arc<BTreeMap<_, _>> = Arc::new(pools.into_iter().map(watched).collect());
        let clock = Clock(Instant::now());
        let within = settings.read_timeout.get();
        let (sources, cannot_recall) = (sources.clone(), Arc::default());
        let reader = Reader { pools: Arc::clone(&pools), sources, clock, within, cannot_recall };
        let mut tasks = JoinSet::new();
        tasks.spawn(reader.clone().look_for_ever(settings.sample_interval.get()));
        tasks.spawn(reader.listen_for_ever());
        Self { pools, clock, _tasks: tasks }
    }

    /// What is known of a pool, as it changes.
    pub(crate) fn seen(&self, pool: &PoolName) -> Option<watch::Receiver<Seen>> {
        self.pools.get(pool).map(|watched| watched.seen.subscribe())
    }

    /// The clock of the readings.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }
}

impl Reader {
    /// Reads all pools again and again.
    async fn look_for_ever(self, every: Duration) {
        let names: Vec<PoolName> = self.pools.keys().cloned().collect();
        let pieces: Vec<&[PoolName]> = names.chunks(PIECE_POOLS).collect();
        let spread = (every * 3 / 4).min(LONGEST_SPREAD);
        let pause = |place: usize| spread.mul_f64(place as f64 / pieces.len() as f64);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let started = Instant::now();
            let read = async |(place, piece): (usize, &&[PoolName])| {
                sleep(pause(place)).await;
                self.read(piece).await;
            };
            stream::iter(pieces.iter().enumerate()).for_each_concurrent(None, read).await;
            ::metrics::histogram!(metrics::SAMPLE_SECONDS).record(started.elapsed().as_secs_f64());
        }
    }

    /// Reads a pool that was idle as soon as the ledger says that it may have got work.
    async fn listen_for_ever(self) {
        loop {
            match self.sources.ledger.arrivals().await {
                Ok(arrivals) => {
                    let mut arrivals = arrivals.ready_chunks(PIECE_POOLS);
                    while let Some(told) = arrivals.next().await {
                        self.read(&self.idle(told)).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the ledger cannot tell of arrivals: pools are read in turn alone")
                }
            }
            sleep(LISTEN_AGAIN).await;
        }
    }

    /// The pools of which something is told, and that are idle as far as is known. After an error anything may have
    /// happened, which the next turn will see.
    fn idle(&self, told: Vec<queue::Result<PoolName>>) -> Vec<PoolName> {
        let mut idle: Vec<PoolName> = Vec::new();
        for told in told {
            match told {
                Ok(pool) if self.pools.get(&pool).is_some_and(|watched| watched.seen.borrow().is_idle()) => {
                    idle.push(pool)
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "arrivals are not told of for now"),
            }
        }
        idle.sort();
        idle.dedup();
        idle
    }

    /// Reads some pools, and says what came of it.
    async fn read(&self, pools: &[PoolName]) {
        if pools.is_empty() {
            return;
        }
        let taken_at = self.clock.now();
        // A pool whose workers are gone is known by what the last of them measured: before it is first decided on.
        let (read, ()) = tokio::join!(self.ask(pools), self.recall(pools));
        let now = Timestamp::now();
        let mut answers = read.map(Vec::into_iter);
        let (mut lost, mut again) = (Vec::new(), Vec::new());
        for pool in pools {
            let answer = match &mut answers {
                // One answer per pool: a backend that gives fewer is at fault.
                Ok(answers) => answers.next().unwrap_or_else(|| Err(Failure::new("gauge", "gave no answer"))),
                Err(failure) => Err(failure.clone()),
            };
            let Some(watched) = self.pools.get(pool) else { continue };
            let answer = answer.map(|raw| Reading::new(taken_at, now, &raw.depth, raw.counts, &raw.workers));
            match watched.hear(answer) {
                Heard::Lost(failure) => lost.push((pool, failure)),
                Heard::Again => again.push(pool),
                Heard::AsBefore => {}
            }
        }
        // One line however many pools: what is wrong with one is often wrong with all of them.
        if let Some((pool, Failure { source, reason })) = lost.first() {
            tracing::warn!(%pool, pools = lost.len(), source, reason, "pools cannot be read");
        }
        if let Some(pool) = again.first() {
            tracing::info!(%pool, pools = again.len(), "pools can be read again");
        }
    }

    /// Asks the roster what it remembers of those pools of which it has not said so yet. Where it fails, the next reading of
    /// the pool asks again: meanwhile the pool is scaled by what its own workers say.
    async fn recall(&self, pools: &[PoolName]) {
        let watched = pools.iter().filter_map(|pool| self.pools.get_key_value(pool));
        let unknown = watched.filter(|(_, watched)| !watched.seen.borrow().has_recalled);
        let (pools, unknown): (Vec<PoolName>, Vec<&Watched>) =
            unknown.map(|(pool, watched)| (pool.clone(), watched)).unzip();
        if pools.is_empty() {
            return;
        }
        match self.bounded("roster", self.sources.roster.measured(&pools)).await {
            Ok(remembered) => {
                self.cannot_recall.store(false, Ordering::Relaxed);
                for (watched, remembered) in unknown.into_iter().zip(remembered) {
                    watched.seen.send_if_modified(|seen| seen.recall(remembered));
                }
            }
            Err(Failure { source, reason }) if !self.cannot_recall.swap(true, Ordering::Relaxed) => {
                tracing::warn!(pools = pools.len(), source, reason, "what workers measured earlier is not known yet");
            }
            // As told before.
            Err(_) => {}
        }
    }

    /// One reading: the ledger, the broker, and the ledger again; see [`Reading::new`].
    async fn ask(&self, pools: &[PoolName]) -> Result<Vec<Result<Raw, Failure>>, Failure> {
        let Sources { gauge, ledger, roster } = &self.sources;
        let before = self.bounded("ledger", ledger.counts(pools)).await?;
        let depths = self.bounded("gauge", async { Ok(gauge.depths(pools).await) }).await?;
        let (after, workers) = tokio::try_join!(
            self.bounded("ledger", ledger.counts(pools)),
            self.bounded("roster", roster.workers(pools)),
        )?;
        let counts = before.into_iter().zip(after);
        let all = depths.into_iter().zip(counts).zip(workers);
        let raw = |((depth, (before, after)), workers): ((queue::Result<Depth>, _), _)| {
            let depth = depth.map_err(|error| failed("gauge", &error))?;
            Ok(Raw { depth, counts: [before, after], workers })
        };
        Ok(all.map(raw).collect())
    }

    async fn bounded<T>(
        &self,
        source: &'static str,
        read: impl Future<Output = queue::Result<T>>,
    ) -> Result<T, Failure> {
        match timeout(self.within, read).await {
            Ok(read) => read.map_err(|error| failed(source, &error)),
            Err(_) => {
                let within = service::Period::new(self.within);
                Err(Failure::new(source, format!("did not answer within {within}")))
            }
        }
    }
}

/// What the backends say of a pool.
struct Raw {
    depth: Depth,
    counts: [JobCounts; 2],
    workers: Vec<WorkerRecord>,
}

/// The error's text may hold an address or worse: it is for the log, not for who asks.
fn failed(source: &'static str, error: &queue::Error) -> Failure {
    tracing::debug!(source, error = error as &dyn std::error::Error, "pools cannot be read");
    Failure::new(
        source,
        match error.kind() {
            queue::ErrorKind::Unavailable => "is unavailable".to_owned(),
            kind => format!("cannot be read ({kind:?})"),
        },
    )
}

/// What an answer means to who reads the log.
enum Heard {
    /// The first failure after a reading.
    Lost(Failure),
    /// The first reading after a failure.
    Again,
    AsBefore,
}

impl Watched {
    fn hear(&self, answer: Result<Reading, Failure>) -> Heard {
        let had_failed = self.seen.borrow().failure.is_some();
        match answer {
            Ok(reading) => {
                self.metrics.tell(&reading);
                self.seen.send_if_modified(|seen| seen.add(reading));
                if had_failed { Heard::Again } else { Heard::AsBefore }
            }
            Err(failure) => {
                self.metrics.failed(&failure);
                self.seen.send_if_modified(|seen| seen.failure.replace(failure.clone()).is_none());
                if had_failed { Heard::AsBefore } else { Heard::Lost(failure) }
            }
        }
    }
}

impl Sources {
    /// The same broker, ledger and roster for every pool.
    pub fn new(gauge: Arc<dyn Gauge>, ledger: Arc<dyn Ledger>, roster: Arc<dyn Roster>) -> Self {
        Self { gauge, ledger, roster }
    }
}
