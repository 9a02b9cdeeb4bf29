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

use crate::drain::job;
use crate::http::Connection;

const CONNECTIONS: usize = 64;
const TIME: Duration = Duration::from_secs(10);
const BODY: &[u8] = &[b'x'; 256];

/// Submits on all connections at once, for a while; then publishes past gateway and ledger.
pub(crate) async fn run(kind: BrokerKind) -> anyhow::Result<()> {
    let system = System::on(kind, "pools: {echo: {model: echo}}")?;
    let gateway = system.gateway().await?;
    let began = Instant::now();
    let mut submitters = Vec::new();
    for _ in 0..CONNECTIONS {
        let headers = "content-type: application/octet-stream\r\n";
        let mut connection = Connection::open(&gateway.url, "/v1/pools/echo/jobs", headers, BODY).await?;
        submitters.push(tokio::spawn(async move {
            let mut micros = Histogram::<u64>::new(3)?;
            while began.elapsed() < TIME {
                let asked = Instant::now();
                match connection.post().await? {
                    202 => micros.record(asked.elapsed().as_micros() as u64)?,
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
    let per_second = micros.len() as f64 / began.elapsed().as_secs_f64();
    println!(
        "{kind:<8} submits: {per_second:.0}/s durable at {CONNECTIONS} connections, {} bytes each; p50 {:.1} ms, p99 {:.1} ms, max \
         {:.1} ms",
        BODY.len(),
        micros.value_at_quantile(0.5) as f64 / 1e3,
        micros.value_at_quantile(0.99) as f64 / 1e3,
        micros.max() as f64 / 1e3,
    );
    let published_per_second = published_per_second(kind).await?;
    println!(
        "                  beside it: the broker alone confirms {published_per_second:.0}/s of the same jobs with \
         {CONNECTIONS} outstanding; {:.2} submits per such publish",
        per_second / published_per_second
    );
    if kind == BrokerKind::Embedded {
        let syncs_per_second = syncs_per_second(system.folder())?;
        println!(
            "                  beside it: this disk syncs {syncs_per_second:.0} appends/s one by one; {:.1} submits per \
             such sync",
            per_second / syncs_per_second
        );
    }
    Ok(())
}

/// How many jobs per second the broker confirms, through the driver as our producer uses it, with as many publishes
/// outstanding as there are connections. It is measured through the producer since no crate but `queue` knows a driver.
async fn published_per_second(kind: BrokerKind) -> anyhow::Result<f64> {
    let system = System::on(kind, "pools: {echo: {model: echo}}")?;
    let backend = system.backend().await?;
    let producer = backend.broker.producer().await?;
    let pool: PoolName = "echo".parse()?;
    let one = |pool: &PoolName| job(pool, "application/octet-stream", Bytes::from_static(BODY));
    // The first publish connects, and makes queues and topics.
    producer.publish(&[one(&pool)]).await?;
    let began = Instant::now();
    let publishers = [(); CONNECTIONS].map(|()| {
        let (producer, pool) = (Arc::clone(&producer), pool.clone());
        tokio::spawn(async move {
            let mut published = 0;
            while began.elapsed() < TIME {
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
    Ok(published as f64 / began.elapsed().as_secs_f64())
}

/// How often this disk can make a small append durable: the limit for who commits jobs one by one.
fn syncs_per_second(folder: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(folder.join("syncs"))?;
    let began = Instant::now();
    let mut syncs = 0;
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / began.elapsed().as_secs_f64())
}
