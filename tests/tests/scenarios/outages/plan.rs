//! The outages of one seed.

use std::fmt;
use std::time::Duration;

use millrace_tests::BrokerKind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::fleet::{Fleet, Instead, Server};

/// The number of outages of a run.
const OUTAGES: usize = 3;

/// The outages of a run, in order.
pub(super) struct Plan {
    kind: BrokerKind,
    seed: u64,
    /// With one attempt, no outage ends a worker: a job whose worker has ended would be dead, rightly.
    pub(super) max_attempts: u32,
    pub(super) outages: Vec<Outage>,
}

/// An outage, and the quiet time before it.
pub(super) struct Outage {
    after: Duration,
    lasts: Duration,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    SuspendServer(Server),
    KillServer(Server),
    SuspendGateway,
    SuspendScaler,
    SuspendWorker,
    KillWorker,
    /// A worker joins, and leaves in order: with Kafka each of the two is a rebalance.
    WorkerJoinsAndLeaves,
    /// The folder of blobs is renamed, and perhaps something else takes its place.
    MoveBlobs(Instead),
    /// The disk of the data folder is full.
    FillDisk,
}

impl Plan {
    pub(super) fn new(kind: BrokerKind, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // Every second seed has a single attempt.
        let max_attempts = if seed.is_multiple_of(2) { 5 } else { 1 };
        let mut choices = vec![
            What::SuspendGateway,
            What::SuspendScaler,
            What::WorkerJoinsAndLeaves,
            What::MoveBlobs(Instead::Nothing),
            What::MoveBlobs(Instead::Folder),
            What::MoveBlobs(Instead::File),
        ];
        if max_attempts > 1 {
            choices.extend([What::SuspendWorker, What::KillWorker]);
        }
        let mut of_servers: Vec<What> = Server::of(kind)
            .iter()
            .flat_map(|&server| [What::SuspendServer(server), What::KillServer(server)])
            .collect();
        if of_servers.is_empty() {
            // The embedded broker and its ledger are a file. A suspended process may hold its lock.
            of_servers = vec![What::SuspendGateway];
        }
        if let Ok(names) = std::env::var("MILLRACE_OUTAGE_KINDS") {
            let is_named = |what: &What| names.split(' ').any(|name| name == format!("{what:?}"));
            let all = of_servers.into_iter().chain(choices).chain([What::FillDisk]);
            choices = all.filter(is_named).collect();
            assert!(!choices.is_empty(), "MILLRACE_OUTAGE_KINDS={names} names no outage of {kind}, seed {seed}");
            of_servers = choices.clone();
        }
        let seconds = std::env::var("MILLRACE_OUTAGE_SECONDS").ok();
        let seconds: Option<u64> = seconds.map(|seconds| seconds.parse().expect("MILLRACE_OUTAGE_SECONDS"));
        let outages = (0..OUTAGES).map(|index| {
            // Every second outage is one of a server.
            let choices = if index % 2 == 0 { &of_servers } else { &choices };
            // From a fraction of the lease to three leases.
            let lasts = Duration::from_millis(random.random_range(1_000..12_000));
            Outage {
                after: Duration::from_millis(random.random_range(500..2_000)),
                lasts: seconds.map_or(lasts, Duration::from_secs),
                what: choices[random.random_range(0..choices.len())],
            }
        });
        Self { kind, seed, max_attempts, outages: outages.collect() }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, seed, max_attempts, outages } = self;
        write!(f, "{kind}, seed {seed}, max_attempts {max_attempts}:")?;
        outages.iter().try_for_each(|outage| write!(f, " [{outage}]"))
    }
}

impl Outage {
    pub(super) async fn run(&self, fleet: &mut Fleet) -> anyhow::Result<()> {
        sleep(self.after).await;
        match self.what {
            What::SuspendServer(server) => {
                fleet.server(server).suspend()?;
                sleep(self.lasts).await;
                fleet.server(server).resume()?;
            }
            What::KillServer(server) => {
                fleet.server(server).kill().await?;
                sleep(self.lasts).await;
                fleet.server(server).start_again().await?;
            }
            What::SuspendGateway => suspended(fleet.gateway(), self.lasts).await?,
            What::SuspendScaler => suspended(fleet.scaler(), self.lasts).await?,
            What::SuspendWorker => {
                fleet.loses_a_worker();
                suspended(fleet.worker(), self.lasts).await?;
            }
            What::KillWorker => fleet.replace_worker().await?,
            What::WorkerJoinsAndLeaves => {
                let worker = fleet.one_more_worker().await?;
                sleep(self.lasts).await;
                worker.terminate()?;
                let (status, output) = worker.ended().await?;
                anyhow::ensure!(status.success(), "{status}: {output}");
            }
            What::MoveBlobs(instead) => fleet.without_blobs(sleep(self.lasts), instead).await?,
            What::FillDisk => fleet.with_full_disk(sleep(self.lasts)).await?,
        }
        fleet.full_batches().await.map(drop)
    }
}

async fn suspended(process: &millrace_tests::Process, lasts: Duration) -> anyhow::Result<()> {
    process.suspend()?;
    sleep(lasts).await;
    process.resume()
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, lasts, what } = self;
        write!(f, "after {after:.1?}: {what:?} for {lasts:.1?}")
    }
}
