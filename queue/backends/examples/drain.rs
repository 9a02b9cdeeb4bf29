//! Measures how fast a broker accepts and delivers jobs: `drain BROKER-URL [LEDGER-URL] [JOBS]`.

use std::error::Error;
use std::time::{Duration, Instant};

use millrace_backends::BackendUrls;
use queue::{Body, Class, Input, Job, JobId, PoolName, Settlement};

const BODY_BYTES: usize = 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let broker = arguments.first().ok_or("drain BROKER-URL [LEDGER-URL] [JOBS]")?.parse()?;
    let ledger = arguments.get(1).map(|url| url.parse()).transpose()?;
    let count = arguments.get(2).map_or(Ok(10_000), |count| count.parse())?;
    let backend = millrace_backends::open(&BackendUrls::new(broker, ledger)?).await?;
    let pool: PoolName = "drain".parse()?;
    let producer = backend.broker.producer().await?;
    let consumer = backend.broker.consumer(&pool).await?;
    for batch in [1, 8, 64, 128, 256] {
        let count = if batch == 1 { count / 20 } else { count };
        let jobs: Vec<_> = (0..count).map(|_| job(&pool)).collect();
        let started = Instant::now();
        for jobs in jobs.chunks(batch) {
            producer.publish(jobs).await?;
        }
        let published = rate(count, started.elapsed());
        let (mut drained, started) = (0, Instant::now());
        while drained < count {
            let deliveries = consumer.receive(batch).await?;
            drained += deliveries.len();
            consumer.settle(deliveries.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await?;
        }
        println!("batches of {batch}: {published:.0} published/s, {:.0} drained/s", rate(count, started.elapsed()));
    }
    Ok(())
}

fn job(pool: &PoolName) -> Job {
    Job {
        id: JobId::generate(),
        pool: pool.clone(),
        class: Class::Standard,
        input: Input {
            media_type: "application/octet-stream".to_owned(),
            body: Body::Inline(vec![7; BODY_BYTES].into()),
        },
        created_at: jiff::Timestamp::now(),
        deadline_at: None,
        max_attempts: 3,
        retention: Duration::from_secs(3600),
        trace_parent: None,
        origin: None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "it is printed without decimals")]
fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
