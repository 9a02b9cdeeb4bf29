//! The scaler with thousands of pools: the time of calls, the cost of reading the pools, and the delay of a push to KEDA.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use millrace_tests::{BrokerKind, Scaler, System, until};
use proto::externalscaler::external_scaler_client::ExternalScalerClient;
use proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use queue::PoolName;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};
use tonic::transport::Channel;

use crate::drain::job;
use client::Connection;

const POOLS: usize = 10_000;
/// The number of pools that have work.
const BUSY_POOLS: usize = 500;
const CALLERS: usize = 40;
const CALLS_PER_SECOND: usize = 2_000;
const TIME: Duration = Duration::from_secs(15);

/// The number of pools for which a push is measured, one after the other.
const PUSHES: usize = 100;

/// Measures pushes, readings and calls.
pub(crate) async fn run(kind: BrokerKind) -> anyhow::Result<()> {
    pushes(kind).await?;
    // RabbitMQ and Kafka have queues, topics and groups per pool. With thousands of these, the figures would show the
    // server, not the scaler.
    if matches!(kind, BrokerKind::Embedded | BrokerKind::Redis) {
        many_pools(kind).await?;
    }
    Ok(())
}

async fn pushes(kind: BrokerKind) -> anyhow::Result<()> {
    let system = System::on(kind, &pools(PUSHES, "backlog"))?;
    let gateway = system.gateway().await?;
    let scaler = system.scaler().await?;
    let mut client = scaler.connect().await?;
    let mut micros = Histogram::<u64>::new(3)?;
    for number in 0..PUSHES {
        let pool = format!("p{number}");
        let mut stream = client.stream_is_active(object(&pool)).await?.into_inner();
        let idle = timeout(TIME, stream.message()).await??.context("the stream ended")?;
        ensure!(!idle.result, "{pool} is active without work");
        let headers = "content-type: text/plain\r\n";
        let path = format!("/v1/pools/{pool}/jobs");
        let mut connection = Connection::open(&gateway.url, &path, headers, b"hello").await?;
        let status = connection.post().await?;
        ensure!(status == 202, "a job was answered with {status}");
        let accepted = Instant::now();
        let pushed = timeout(TIME, stream.message()).await.context("nothing was pushed")??;
        ensure!(pushed.is_some_and(|message| message.result), "the stream ended");
        micros.record(accepted.elapsed().as_micros() as u64)?;
    }
    println!("{kind:<8} scaler:  from 202 to true on StreamIsActive, {PUSHES} empty pools in turn: {}", shown(&micros));
    Ok(())
}

async fn many_pools(kind: BrokerKind) -> anyhow::Result<()> {
    let system = System::on(kind, &pools(POOLS, "latency"))?;
    let backend = system.backend().await?;
    let producer = backend.broker.producer().await?;
    let mut jobs = Vec::new();
    for number in 0..BUSY_POOLS {
        let pool: PoolName = format!("p{}", number * POOLS / BUSY_POOLS).parse()?;
        jobs.push(job(&pool, "text/plain", "hello".into()));
    }
    for piece in jobs.chunks(100) {
        backend.ledger.submit(piece).await?;
        producer.publish(piece).await?;
    }
    let scaler = system.scaler().await?;
    let client = scaler.connect().await?;
    until("every pool has been read", async || {
        let last = client.clone().get_metrics(metrics_of(&format!("p{}", POOLS - 1))).await;
        Ok(last.is_ok().then_some(()))
    })
    .await?;
    let pid = scaler.process.pid().context("the scaler has ended")?;
    let (idle, commands) = (cpu_seconds(pid)?, commands(kind).await?);
    sleep(TIME).await;
    let reading = (cpu_seconds(pid)? - idle) / TIME.as_secs_f64();
    let commands = crate::scaler::commands(kind).await?.zip(commands).map(|(after, before)| after - before);

    let before = cpu_seconds(pid)?;
    let callers = (0..CALLERS).map(|caller| calls(scaler.connect(), caller));
    let (mut spec, mut metrics) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    for (of_spec, of_metrics) in try_join_all(callers).await? {
        spec.add(of_spec)?;
        metrics.add(of_metrics)?;
    }
    let calling = (cpu_seconds(pid)? - before) / TIME.as_secs_f64();
    let rate = (spec.len() + metrics.len()) as f64 / TIME.as_secs_f64();
    println!("{kind:<8} scaler:  {POOLS} pools in mode latency, {BUSY_POOLS} with work, a reading every 500 ms");
    println!("         {rate:.0} calls/s: GetMetricSpec {}; GetMetrics {}", shown(&spec), shown(&metrics));
    let sent =
        commands.map_or_else(String::new, |count| format!(", {:.0} commands/s", count as f64 / TIME.as_secs_f64()));
    println!(
        "         reading alone {:.0} % of a core{sent}; with the calls {:.0} %; {} resident",
        reading * 100.0,
        calling * 100.0,
        resident(pid)?
    );
    print_reading_time(&scaler).await
}

/// Prints the average time of one reading of all pools.
async fn print_reading_time(scaler: &Scaler) -> anyhow::Result<()> {
    let seconds = scaler.metric("millrace_scaler_sample_seconds_sum").await?;
    let readings = scaler.metric("millrace_scaler_sample_seconds_count").await?;
    println!("         one reading of all pools: {:.0} ms on average", seconds / readings.max(1.0) * 1e3);
    Ok(())
}

/// The calls of one client, half of each kind.
async fn calls(
    connected: impl Future<Output = anyhow::Result<ExternalScalerClient<Channel>>>,
    caller: usize,
) -> anyhow::Result<(Histogram<u64>, Histogram<u64>)> {
    let mut client = connected.await?;
    let (mut spec, mut metrics) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    // The clients start at different times, so their calls are spread evenly.
    let period = Duration::from_secs(1) * CALLERS as u32 / CALLS_PER_SECOND as u32;
    let mut ticks = interval_at(tokio::time::Instant::now() + period * caller as u32 / CALLERS as u32, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let started = Instant::now();
    let mut number = caller;
    while started.elapsed() < TIME {
        ticks.tick().await;
        number = (number + 7919) % POOLS;
        let pool = format!("p{number}");
        let sent = Instant::now();
        if number.is_multiple_of(2) {
            client.get_metric_spec(object(&pool)).await?;
            spec.record(sent.elapsed().as_micros() as u64)?;
        } else {
            client.get_metrics(metrics_of(&pool)).await?;
            metrics.record(sent.elapsed().as_micros() as u64)?;
        }
    }
    Ok((spec, metrics))
}

fn pools(count: usize, mode: &str) -> String {
    let trigger = if mode == "latency" { "{mode: latency, latency: 5s}" } else { "{}" };
    (0..count).fold("pools:\n".to_owned(), |mut yaml, number| {
        // Writing to a string cannot fail.
        let _ = writeln!(yaml, "  p{number}: {{model: echo, scale: {{trigger: {trigger}}}}}");
        yaml
    })
}

fn object(pool: &str) -> ScaledObjectRef {
    ScaledObjectRef {
        name: pool.to_owned(),
        namespace: "bench".to_owned(),
        scaler_metadata: HashMap::from([("pool".to_owned(), pool.to_owned())]),
    }
}

fn metrics_of(pool: &str) -> GetMetricsRequest {
    GetMetricsRequest { scaled_object_ref: Some(object(pool)), metric_name: format!("millrace-{pool}") }
}

fn shown(micros: &Histogram<u64>) -> String {
    let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms, most {:.1} ms", at(0.5), at(0.99), at(1.0))
}

/// The processor time of a process, in seconds.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may contain spaces and parentheses. The fields after it start with the state; ticks are the 12th and 13th.
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).context("too few fields")?.parse::<f64>().context("no number");
    // Linux reports ticks of 1/100 s.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn resident(pid: u32) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().to_owned())
}

/// The number of commands that the Redis server has run so far; `None` for another broker.
async fn commands(kind: BrokerKind) -> anyhow::Result<Option<u64>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    if kind != BrokerKind::Redis {
        return Ok(None);
    }
    let url = std::env::var("MILLRACE_TEST_REDIS_URL")?;
    let url = reqwest::Url::parse(&url)?;
    let address = (url.host_str().context("no host")?.to_owned(), url.port().unwrap_or(6379));
    let mut server = tokio::net::TcpStream::connect(address).await?;
    server.write_all(b"INFO stats\r\nQUIT\r\n").await?;
    let mut text = String::new();
    server.read_to_string(&mut text).await?;
    match text.lines().find_map(|line| line.strip_prefix("total_commands_processed:")) {
        Some(count) => Ok(Some(count.trim().parse()?)),
        None => bail!("the Redis server does not report its number of commands: {text:.80}"),
    }
}
