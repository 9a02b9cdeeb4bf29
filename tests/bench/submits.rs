//! Durable submits per second.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use hdrhistogram::Histogram;
use millrace_tests::{BrokerKind, System};
use queue::PoolName;

use crate::cpu::CpuMeter;
use crate::drain::job;
use client::Connection;

const CONNECTIONS: usize = 64;
pub(crate) const TIME: Duration = Duration::from_secs(10);
const BODY: &[u8] = &[b'x'; 256];

/// The answers of a server to submissions.
pub(crate) struct Submits {
    micros: Histogram<u64>,
    took: Duration,
}

impl Submits {
    /// The number of accepted submissions.
    pub(crate) fn len(&self) -> u64 {
        self.micros.len()
    }

    /// The number of accepted submissions per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.len() as f64 / self.took.as_secs_f64()
    }
}

/// Submits `body` to the server at `url` on all connections at once, for this time.
pub(crate) async fn submit(url: &str, body: &'static [u8], time: Duration) -> anyhow::Result<Submits> {
    let started = Instant::now();
    let mut submitters = Vec::new();
    for _ in 0..CONNECTIONS {
        let headers = "content-type: application/octet-stream\r\n";
        let mut connection = Connection::open(url, "/v1/pools/echo/jobs", headers, body).await?;
        submitters.push(tokio::spawn(async move {
            let mut micros = Histogram::<u64>::new(3)?;
            while started.elapsed() < time {
                let sent = Instant::now();
                match connection.post().await? {
                    202 => micros.record(sent.elapsed().as_micros() as u64)?,
                    status => bail!("a submit was answered with {status}"),
                }
            }
            Ok(micros)
        }));
    }
    let mut micros = Histogram::<u64>::new(3)?;
    for submitter in submitters {
        micros.add(submitter.await??)?;
    }
    Ok(Submits { micros, took: started.elapsed() })
}

/// Submits on all connections at once; then publishes to the broker without gateway and ledger.
pub(crate) async fn run(kind: BrokerKind) -> anyhow::Result<()> {
    let system = System::on(kind, "pools: {echo: {model: echo}}")?;
    let gateway = system.gateway().await?;
    let cpu = CpuMeter::start(kind, &[("gateway", gateway.process.pid())])?;
    let submits = submit(&gateway.url, BODY, TIME).await?;
    let (micros, per_second) = (&submits.micros, submits.per_second());
    println!(
        "{kind:<8} submits: {per_second:.0}/s durable at {CONNECTIONS} connections, {} bytes each; p50 {:.1} ms, p99 {:.1} ms, max \
         {:.1} ms",
        BODY.len(),
        micros.value_at_quantile(0.5) as f64 / 1e3,
        micros.value_at_quantile(0.99) as f64 / 1e3,
        micros.max() as f64 / 1e3,
    );
    println!("{}", cpu.per_job(micros.len())?);
    let published_per_second = published_per_second(kind).await?;
    println!(
        "                  for comparison: the broker alone confirms {published_per_second:.0}/s of the same jobs with \
         {CONNECTIONS} outstanding; {:.2} submits per such publish",
        per_second / published_per_second
    );
    if kind == BrokerKind::Embedded {
        let syncs_per_second = syncs_per_second(system.folder())?;
        println!(
            "                  for comparison: this disk syncs {syncs_per_second:.0} appends/s one by one; {:.1} submits per \
             such sync",
            per_second / syncs_per_second
        );
    }
    Ok(())
}

/// The number of jobs per second that the broker confirms, with one outstanding publish per connection. It is measured
/// through the producer, because only the driver crates know the brokers' clients.
async fn published_per_second(kind: BrokerKind) -> anyhow::Result<f64> {
    let system = System::on(kind, "pools: {echo: {model: echo}}")?;
    let backend = system.backend().await?;
    let producer = backend.broker.producer().await?;
    let pool: PoolName = "echo".parse()?;
    let one = |pool: &PoolName| job(pool, "application/octet-stream", Bytes::from_static(BODY));
    // The first publish connects, and creates queues and topics.
    producer.publish(&[one(&pool)]).await?;
    let started = Instant::now();
    let publishers = [(); CONNECTIONS].map(|()| {
        let (producer, pool) = (Arc::clone(&producer), pool.clone());
        tokio::spawn(async move {
            let mut published = 0;
            while started.elapsed() < TIME {
                producer.publish(&[one(&pool)]).await?;
                published += 1;
            }
            anyhow::Ok(published)
        })
    });
    let mut published = 0;
    for publisher in publishers {
        published += publisher.await??;
    }
    Ok(published as f64 / started.elapsed().as_secs_f64())
}

/// The number of small durable appends per second on this disk: the limit of a system that commits jobs one by one.
fn syncs_per_second(folder: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(folder.join("syncs"))?;
    let started = Instant::now();
    let mut syncs = 0;
    while started.elapsed() < Duration::from_secs(2) {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / started.elapsed().as_secs_f64())
}
