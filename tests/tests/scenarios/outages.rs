//! Outages cost time, and never a job or an attempt.
//!
//! A system with a steady load of jobs has one outage after the other: servers are suspended, or killed and restarted;
//! the blob folder moves away; workers are suspended, killed, or join. A seed chooses the outages, their lengths and the
//! time between them. The check uses only what a user has: processes, HTTP, and the files of the blob store.
//!
//! CONTRIBUTING.md names the variables for other seeds, kinds and lengths.

mod fleet;
mod load;
mod plan;

use std::time::Duration;

use millrace_tests::BrokerKind;

use fleet::Fleet;
use load::Load;
use plan::Plan;

/// Together they draw each outage of each broker.
const SEEDS: [u64; 3] = [1, 2, 3];

/// The time limit for all jobs to end after the last outage. It is far longer than needed, so only a fault is slow.
const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn outages_cost_no_job_and_no_attempt_on_the_embedded_broker() {
    survives(BrokerKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_cost_no_job_and_no_attempt_on_rabbitmq() {
    survives(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_cost_no_job_and_no_attempt_on_kafka() {
    survives(BrokerKind::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_cost_no_job_and_no_attempt_on_redis() {
    survives(BrokerKind::Redis).await;
}

async fn survives(kind: BrokerKind) {
    let seeds = std::env::var("MILLRACE_OUTAGE_SEEDS").ok();
    let seeds: Vec<u64> = match &seeds {
        Some(list) => list.split(',').map(|seed| seed.trim().parse().expect("a whole number")).collect(),
        None => SEEDS.to_vec(),
    };
    for seed in seeds {
        let plan = Plan::new(kind, seed);
        eprintln!("{plan}");
        let mut fleet = Fleet::start(kind, plan.max_attempts, plan.has_classic_groups).await.unwrap();
        let load = Load::start(fleet.gateway_url());
        for outage in &plan.outages {
            outage.run(&mut fleet).await.unwrap_or_else(|error| panic!("{plan}: {outage}: {error:#}"));
        }
        let report = load.finish(TIMEOUT).await;
        eprintln!("{plan}: {report}");
        let ended = fleet.ended_processes().unwrap();
        assert!(ended.is_empty(), "{plan}: processes have ended by themselves: {}", ended.join("\n"));
        report.check(&plan, &fleet);
        fleet.backlog_returns_to_zero().await.unwrap_or_else(|error| panic!("{plan}: {error:#}"));
    }
}
