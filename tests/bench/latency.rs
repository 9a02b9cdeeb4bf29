//! The time from submission to result on an idle system.

use std::time::Instant;

use anyhow::bail;
use hdrhistogram::Histogram;
use millrace_tests::{BrokerKind, System};

use client::Connection;

const JOBS: usize = 1_000;

/// Submits one job at a time and waits for its result.
pub(crate) async fn run(kind: BrokerKind) -> anyhow::Result<()> {
    let system = System::on(kind, "pools: {echo: {model: echo}}")?;
    let gateway = system.gateway().await?;
    let _worker = system.worker("echo").await?;
    let headers = "content-type: text/plain\r\nprefer: wait=10\r\n";
    let mut connection = Connection::open(&gateway.url, "/v1/pools/echo/jobs", headers, b"hello").await?;
    let mut micros = Histogram::<u64>::new(3)?;
    for _ in 0..JOBS {
        let sent = Instant::now();
        match connection.post().await? {
            200 => micros.record(sent.elapsed().as_micros() as u64)?,
            status => bail!("a job was answered with {status}"),
        }
    }
    println!(
        "{kind:<8} latency: submit to result of an echo job, idle system: p50 {:.2} ms, p99 {:.2} ms",
        micros.value_at_quantile(0.5) as f64 / 1e3,
        micros.value_at_quantile(0.99) as f64 / 1e3,
    );
    Ok(())
}
