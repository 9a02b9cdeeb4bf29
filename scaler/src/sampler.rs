//! Reads all pools in the background. The cost grows with the number of brokers and pools, not with the number of
//! calls.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use policy::reading::Reading;
use queue::{Depth, Gauge, JobCounts, Ledger, PoolName, Roster, WorkerRecord};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::failure::ReadFailure;
use crate::metrics::{self, PoolMetrics};
use crate::readings::PoolReadings;
use crate::settings::ScalerSettings;

/// The number of pools in one call. Fewer pools need more calls. More pools make a call longer, which delays other
/// clients.
const POOLS_PER_CALL: usize = 250;

/// The calls of a round begin one after the other within this time, or within three quarters of a shorter interval. All
/// at once they would take the processor from other tasks, here and in the server. No call waits for the end of
/// another.
const MAX_SPREAD: Duration = Duration::from_secs(1);

/// The pause before the next subscription to the ledger's arrivals, after one has failed or ended.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// The sources of the readings.
#[derive(Clone)]
pub struct Sources {
    /// Reads the depths of pools from the broker.
    pub gauge: Arc<dyn Gauge>,
    /// Counts the jobs of pools, and reports arrivals.
    pub ledger: Arc<dyn Ledger>,
    /// Lists live workers and their measurements.
    pub roster: Arc<dyn Roster>,
}

impl Sources {
    /// The same broker, ledger and roster for every pool.
    pub fn new(gauge: Arc<dyn Gauge>, ledger: Arc<dyn Ledger>, roster: Arc<dyn Roster>) -> Self {
        Self { gauge, ledger, roster }
    }
}

/// The readings of every pool, and the tasks that read them. The tasks stop when the sampler is dropped.
pub(crate) struct Sampler {
    pools: Arc<BTreeMap<PoolName, SampledPool>>,
    clock: Clock,
    _tasks: JoinSet<()>,
}

/// The clock of the readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// The time since the sampler started.
    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

struct SampledPool {
    readings: watch::Sender<PoolReadings>,
    metrics: PoolMetrics,
}

/// Reads pools from the sources. The sampler's tasks share it.
#[derive(Clone)]
struct PoolReader {
    pools: Arc<BTreeMap<PoolName, SampledPool>>,
    sources: Sources,
    clock: Clock,
    timeout: Duration,
    /// Whether the last request for earlier measurements failed, so that a failure is logged once.
    recall_fails: Arc<AtomicBool>,
}

impl Sampler {
    /// Starts to read all pools at the configured interval, and idle pools as soon as a job arrives.
    pub(crate) fn start(
        pools: impl IntoIterator<Item = PoolName>,
        sources: &Sources,
        settings: &ScalerSettings,
    ) -> Self {
        let sampled = |pool: PoolName| {
            let metrics = PoolMetrics::new(&pool);
            (pool, SampledPool { readings: watch::Sender::new(PoolReadings::default()), metrics })
        };
        let pools: Arc<BTreeMap<_, _>> = Arc::new(pools.into_iter().map(sampled).collect());
        let clock = Clock(Instant::now());
        let reader = PoolReader {
            pools: Arc::clone(&pools),
            sources: sources.clone(),
            clock,
            timeout: settings.read_timeout.get(),
            recall_fails: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(reader.clone().read_periodically(settings.sample_interval.get()));
        tasks.spawn(reader.read_on_arrival());
        Self { pools, clock, _tasks: tasks }
    }

    /// Subscribes to the readings of a pool. `None`: the sampler does not read this pool.
    pub(crate) fn subscribe(&self, pool: &PoolName) -> Option<watch::Receiver<PoolReadings>> {
        self.pools.get(pool).map(|sampled| sampled.readings.subscribe())
    }

    /// Records that the HPA was asked for a number of workers of a pool.
    pub(crate) fn request(&self, pool: &PoolName, workers: f64) {
        let Some(sampled) = self.pools.get(pool) else { return };
        let now = self.clock.now();
        sampled.readings.send_if_modified(|readings| {
            readings.history.request(now, workers);
            false
        });
    }

    /// The clock of the readings.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }
}

impl PoolReader {
    /// Reads all pools in every interval.
    async fn read_periodically(self, every: Duration) {
        let names: Vec<PoolName> = self.pools.keys().cloned().collect();
        let chunks: Vec<&[PoolName]> = names.chunks(POOLS_PER_CALL).collect();
        let spread = (every * 3 / 4).min(MAX_SPREAD);
        let pause = |place: usize| spread.mul_f64(place as f64 / chunks.len() as f64);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let started = Instant::now();
            let read = async |(place, chunk): (usize, &&[PoolName])| {
                sleep(pause(place)).await;
                self.read(chunk).await;
            };
            stream::iter(chunks.iter().enumerate()).for_each_concurrent(None, read).await;
            ::metrics::histogram!(metrics::SAMPLE_SECONDS).record(started.elapsed().as_secs_f64());
        }
    }

    /// Reads an idle pool as soon as the ledger reports that a job may have arrived in it.
    async fn read_on_arrival(self) {
        loop {
            match self.sources.ledger.arrivals().await {
                Ok(arrivals) => {
                    let mut arrivals = arrivals.ready_chunks(POOLS_PER_CALL);
                    while let Some(reported) = arrivals.next().await {
                        self.read(&self.idle_pools(reported)).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the ledger cannot report arrivals: pools are read at the interval only")
                }
            }
            sleep(RESUBSCRIBE_PAUSE).await;
        }
    }

    /// The reported pools that were idle at their last reading. A missed report has no lasting effect: the next round
    /// reads every pool.
    fn idle_pools(&self, reported: Vec<queue::Result<PoolName>>) -> Vec<PoolName> {
        let is_idle = |pool: &PoolName| self.pools.get(pool).is_some_and(|sampled| sampled.readings.borrow().is_idle());
        let mut idle: Vec<PoolName> = Vec::new();
        for report in reported {
            match report {
                Ok(pool) if is_idle(&pool) => idle.push(pool),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the ledger cannot report arrivals for now"),
            }
        }
        idle.sort();
        idle.dedup();
        idle
    }

    /// Reads some pools, and stores and logs the results.
    async fn read(&self, pools: &[PoolName]) {
        if pools.is_empty() {
            return;
        }
        let taken_at = self.clock.now();
        // A pool without workers is scaled by the measurements of its last ones, so they must precede the first
        // reading.
        let (counts, ()) = tokio::join!(self.read_counts(pools), self.recall(pools));
        let now = Timestamp::now();
        let mut results = counts.map(Vec::into_iter);
        let (mut failed, mut recovered) = (Vec::new(), Vec::new());
        for pool in pools {
            let result = match &mut results {
                // A gauge must return one result per pool.
                Ok(results) => results.next().unwrap_or_else(|| Err(ReadFailure::new("gauge", "gave no answer"))),
                Err(failure) => Err(failure.clone()),
            };
            let Some(sampled) = self.pools.get(pool) else { continue };
            let result = result.map(|counts| counts.into_reading(taken_at, now));
            match sampled.store(result) {
                Change::Failed(failure) => failed.push((pool, failure)),
                Change::Recovered => recovered.push(pool),
                Change::None => {}
            }
        }
        // The log gets one line for all pools, because one cause often affects all of them.
        if let Some((pool, ReadFailure { source, reason })) = failed.first() {
            tracing::warn!(%pool, pools = failed.len(), source, reason, "pools cannot be read");
        }
        if let Some(pool) = recovered.first() {
            tracing::info!(%pool, pools = recovered.len(), "pools can be read again");
        }
    }

    /// Reads earlier measurements of those pools that have none yet from the roster. After a failure the next reading
    /// of the pool tries again. Until then the pool is scaled by the measurements of its live workers.
    async fn recall(&self, pools: &[PoolName]) {
        let sampled = pools.iter().filter_map(|pool| self.pools.get_key_value(pool));
        let missing = sampled.filter(|(_, sampled)| !sampled.readings.borrow().has_recalled);
        let (pools, missing): (Vec<PoolName>, Vec<&SampledPool>) =
            missing.map(|(pool, sampled)| (pool.clone(), sampled)).unzip();
        if pools.is_empty() {
            return;
        }
        match self.bounded("roster", self.sources.roster.measured(&pools)).await {
            Ok(measured) => {
                self.recall_fails.store(false, Ordering::Relaxed);
                for (sampled, measured) in missing.into_iter().zip(measured) {
                    sampled.readings.send_if_modified(|readings| readings.recall(measured));
                }
            }
            Err(ReadFailure { source, reason }) if !self.recall_fails.swap(true, Ordering::Relaxed) => {
                tracing::warn!(pools = pools.len(), source, reason, "earlier measurements of workers cannot be read");
            }
            // Already logged.
            Err(_) => {}
        }
    }

    /// Reads the ledger, the broker, and the ledger again. [`Reading::new`] explains the reason.
    async fn read_counts(&self, pools: &[PoolName]) -> Result<Vec<Result<PoolCounts, ReadFailure>>, ReadFailure> {
        let Sources { gauge, ledger, roster } = &self.sources;
        let before = self.bounded("ledger", ledger.counts(pools)).await?;
        let depths = self.bounded("gauge", async { Ok(gauge.depths(pools).await) }).await?;
        let (after, workers) = tokio::try_join!(
            self.bounded("ledger", ledger.counts(pools)),
            self.bounded("roster", roster.workers(pools)),
        )?;
        let of_ledger = before.into_iter().zip(after);
        let all = depths.into_iter().zip(of_ledger).zip(workers);
        let counts = |((depth, (before, after)), workers): ((queue::Result<Depth>, _), _)| {
            let depth = depth.map_err(|error| read_failure("gauge", &error))?;
            Ok(PoolCounts { depth, jobs: [before, after], workers })
        };
        Ok(all.map(counts).collect())
    }

    async fn bounded<T>(
        &self,
        source: &'static str,
        read: impl Future<Output = queue::Result<T>>,
    ) -> Result<T, ReadFailure> {
        match timeout(self.timeout, read).await {
            Ok(read) => read.map_err(|error| read_failure(source, &error)),
            Err(_) => {
                let timeout = service::Period::new(self.timeout);
                Err(ReadFailure::new(source, format!("did not answer within {timeout}")))
            }
        }
    }
}

/// The answers of the sources for one pool.
struct PoolCounts {
    depth: Depth,
    jobs: [JobCounts; 2],
    workers: Vec<WorkerRecord>,
}

impl PoolCounts {
    fn into_reading(self, taken_at: Duration, now: Timestamp) -> Reading {
        Reading::new(taken_at, now, &self.depth, self.jobs, &self.workers)
    }
}

/// Logs the error and returns a failure without its text, which may hold an address or a credential.
fn read_failure(source: &'static str, error: &queue::Error) -> ReadFailure {
    tracing::debug!(source, error = error as &dyn std::error::Error, "pools cannot be read");
    ReadFailure::new(
        source,
        match error.kind() {
            queue::ErrorKind::Unavailable => "is unavailable".to_owned(),
            kind => format!("cannot be read ({kind:?})"),
        },
    )
}

/// A change between two results that is logged.
enum Change {
    /// The first failure after a successful reading.
    Failed(ReadFailure),
    /// The first successful reading after a failure.
    Recovered,
    None,
}

impl SampledPool {
    fn store(&self, result: Result<Reading, ReadFailure>) -> Change {
        let had_failed = self.readings.borrow().failure.is_some();
        match result {
            Ok(reading) => {
                self.metrics.record(&reading);
                self.readings.send_if_modified(|readings| readings.add(reading));
                if had_failed { Change::Recovered } else { Change::None }
            }
            Err(failure) => {
                self.metrics.count_failure(&failure);
                self.readings.send_if_modified(|readings| readings.fail(failure.clone()));
                if had_failed { Change::None } else { Change::Failed(failure) }
            }
        }
    }
}
