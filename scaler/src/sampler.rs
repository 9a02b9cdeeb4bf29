//! Reads every pool at its own rhythm.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use queue::{PoolName, WorkerState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::reading::{Failure, Reading, Sample};
use crate::{ScalerSettings, Sources, metrics};

/// The last sample of every pool, and the tasks that take them; dropped, they stop.
pub(crate) struct Sampler {
    samples: BTreeMap<PoolName, watch::Receiver<Sample>>,
    _tasks: JoinSet<()>,
}

impl Sampler {
    /// Starts a task per pool, so that a backend which hangs for one pool holds up no other.
    pub(crate) fn start(
        pools: impl IntoIterator<Item = PoolName>,
        sources: &Sources,
        settings: &ScalerSettings,
    ) -> Self {
        let mut samples = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for pool in pools {
            let (sender, receiver) = watch::channel(Sample::default());
            samples.insert(pool.clone(), receiver);
            let (every, within) = (settings.sample_interval.get(), settings.read_timeout.get());
            tasks.spawn(sample_for_ever(pool, sources.clone(), every, within, sender));
        }
        Self { samples, _tasks: tasks }
    }

    /// The samples of a pool, as they are taken.
    pub(crate) fn samples(&self, pool: &PoolName) -> Option<watch::Receiver<Sample>> {
        self.samples.get(pool).cloned()
    }
}

async fn sample_for_ever(
    pool: PoolName,
    sources: Sources,
    every: Duration,
    within: Duration,
    sender: watch::Sender<Sample>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let outcome = read(&pool, &sources, within).await;
        let label = || ::metrics::Label::new("pool", pool.as_str().to_owned());
        ::metrics::histogram!(metrics::SAMPLE_SECONDS, vec![label()]).record(started.elapsed().as_secs_f64());
        match outcome {
            Ok(reading) => {
                ::metrics::gauge!(metrics::BACKLOG, vec![label()]).set(reading.backlog() as f64);
                ::metrics::gauge!(metrics::LEASED, vec![label()]).set(reading.leased as f64);
                ::metrics::gauge!(metrics::WORKERS, vec![label()]).set(reading.workers as f64);
                if sender.borrow().failure.is_some() {
                    tracing::info!(%pool, "the pool can be read again");
                }
                sender.send_replace(Sample { reading: Some(reading), failure: None });
            }
            Err(failure) => {
                let source = ::metrics::Label::new("source", failure.source);
                ::metrics::counter!(metrics::SAMPLE_FAILURES, vec![label(), source]).increment(1);
                sender.send_modify(|sample| sample.failure = Some(failure));
            }
        }
    }
}

/// One reading: the ledger, the broker, and the ledger again.
///
/// A job moves from the ledger (a retry) to the broker, and from the broker to the ledger (an attempt that failed). Of
/// the two looks at the ledger the larger one counts, so a job that moves meanwhile is counted twice rather than never:
/// too many workers for a moment, never too few.
async fn read(pool: &PoolName, sources: &Sources, within: Duration) -> Result<Reading, Failure> {
    let taken_at = Instant::now();
    let before = bounded("ledger", pool, within, sources.ledger.open_jobs(pool)).await?;
    let depth = bounded("gauge", pool, within, sources.gauge.depth(pool)).await?;
    let asked = std::slice::from_ref(pool);
    let (after, workers) = tokio::try_join!(
        bounded("ledger", pool, within, sources.ledger.open_jobs(pool)),
        bounded("roster", pool, within, sources.roster.workers(asked)),
    )?;
    let workers = workers.concat();
    Ok(Reading {
        taken_at,
        waiting: depth.waiting(),
        in_flight: depth.in_flight.unwrap_or(0),
        queued: before.queued.max(after.queued),
        leased: before.leased.max(after.leased),
        retry: before.retry.max(after.retry),
        workers: workers.len() as u64,
        loading: workers.iter().filter(|worker| worker.state == WorkerState::Loading).count() as u64,
    })
}

async fn bounded<T>(
    source: &'static str,
    pool: &PoolName,
    within: Duration,
    read: impl Future<Output = queue::Result<T>>,
) -> Result<T, Failure> {
    let reason = match timeout(within, read).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => {
            // The text may hold an address or worse: it is for the log, not for who asks.
            tracing::warn!(%pool, source, error = &error as &dyn std::error::Error, "a pool cannot be read");
            match error.kind() {
                queue::ErrorKind::Unavailable => "is unavailable".to_owned(),
                kind => format!("cannot be read ({kind:?})"),
            }
        }
        Err(_) => {
            tracing::warn!(%pool, source, timeout_seconds = within.as_secs_f64(), "a pool is not read in time");
            format!("did not answer within {}", service::Period::new(within))
        }
    };
    Err(Failure { source, reason })
}

impl Sources {
    /// The same broker, ledger and roster for every pool.
    pub fn new(gauge: Arc<dyn queue::Gauge>, ledger: Arc<dyn queue::Ledger>, roster: Arc<dyn queue::Roster>) -> Self {
        Self { gauge, ledger, roster }
    }
}
