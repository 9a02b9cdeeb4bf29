//! Jobs per second that one worker drains, with their results in the ledger.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use millrace_tests::{BrokerKind, System};
use queue::{Backend, Body, Class, Input, Job, JobId, PoolName};
use tokio::time::interval;

use crate::cpu::CpuMeter;

const JOBS: usize = 100_000;
const CHUNK: usize = 1_000;

/// Fills a queue, and measures one worker process that empties it.
pub(crate) async fn run(kind: BrokerKind) -> anyhow::Result<()> {
    let system = System::on(kind, "pools: {echo: {model: echo}}")?;
    let backend = system.backend().await?;
    let pool: PoolName = "echo".parse()?;
    fill(&backend, &pool, "text/plain", &[bytes::Bytes::from_static(&[b'x'; 256])], JOBS).await?;
    let worker = system.worker("echo").await?;
    let cpu = CpuMeter::start(kind, &[("worker", worker.pid())])?;
    let per_second = drained_per_second(&backend, &pool).await?;
    println!("{kind:<8} drain:   {per_second:.0} echo jobs/s by one worker, claimed, run, finished and acknowledged");
    println!("{}", cpu.per_job(JOBS as u64)?);
    Ok(())
}

/// Submits and publishes `jobs` jobs. Their inputs are `bodies` in turn.
pub(crate) async fn fill(
    backend: &Backend,
    pool: &PoolName,
    media_type: &str,
    bodies: &[bytes::Bytes],
    jobs: usize,
) -> anyhow::Result<()> {
    let producer = backend.broker.producer().await?;
    let job = |number: usize| job(pool, media_type, bodies[number % bodies.len()].clone());
    for first in (0..jobs).step_by(CHUNK) {
        let jobs: Vec<Job> = (first..jobs.min(first + CHUNK)).map(job).collect();
        let publications: Vec<_> = jobs.iter().map(|job| queue::Publication::first(job.id.clone())).collect();
        backend.ledger.submit(&jobs).await?;
        producer.publish(&jobs).await?;
        backend.ledger.published(&publications).await?;
    }
    Ok(())
}

/// A new job.
pub(crate) fn job(pool: &PoolName, media_type: &str, body: bytes::Bytes) -> Job {
    Job {
        id: JobId::generate(),
        pool: pool.clone(),
        class: Class::Standard,
        input: Input { media_type: media_type.to_owned(), body: Body::Inline(body) },
        created_at: Timestamp::now(),
        deadline_at: None,
        max_attempts: 5,
        retention: Duration::from_secs(3600),
        trace_parent: None,
        origin: None,
    }
}

/// Jobs per second that leave the broker: they are acknowledged, so their results are in the ledger. The time until the
/// first job leaves is not counted, because it includes the start of the worker.
pub(crate) async fn drained_per_second(backend: &Backend, pool: &PoolName) -> anyhow::Result<f64> {
    let gauge = backend.broker.gauge().await?;
    // A reading counts every waiting message. At this interval its cost is negligible.
    let mut readings = interval(Duration::from_millis(100));
    let (mut filled, mut first) = (None, None);
    loop {
        readings.tick().await;
        let depth = gauge.depths(std::slice::from_ref(pool)).await.remove(0)?;
        let in_flight = match depth.in_flight {
            Some(in_flight) => in_flight,
            None => backend.ledger.counts(std::slice::from_ref(pool)).await?.first().map_or(0, |counts| counts.leased),
        };
        let left = depth.waiting() + in_flight;
        let (now, filled) = (Instant::now(), *filled.get_or_insert(left));
        if left == filled {
            continue;
        }
        let (started, left_then) = *first.get_or_insert((now, left));
        if left == 0 {
            return Ok(left_then as f64 / (now - started).as_secs_f64());
        }
    }
}
