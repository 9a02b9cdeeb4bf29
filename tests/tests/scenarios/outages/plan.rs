//! The outages of one seed.

use std::fmt;
use std::time::Duration;

use millrace_tests::BrokerKind;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::fleet::{Fleet, Instead, Server};

/// Seeds that follow one another share the outages of a broker: together they draw each.
const SEEDS_PER_ROUND: u64 = 3;

/// The length of the first outage of a run. Some faults need an outage that is longer than the time-outs of a client.
const LONG: Duration = Duration::from_secs(12);

/// The lengths of the others, in milliseconds. A worker is suspended for a lease more, so that its lease expires.
const SHORT_MILLISECONDS: std::ops::Range<u64> = 1_000..4_000;
const LEASE: Duration = Duration::from_secs(4);

/// The outages of a run, in order.
pub(super) struct Plan {
    kind: BrokerKind,
    seed: u64,
    /// With one attempt, no outage ends a worker: a job whose worker has ended would be dead, rightly.
    pub(super) max_attempts: u32,
    /// Kafka: whether its consumers use the classic protocol of groups.
    pub(super) has_classic_groups: bool,
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
    /// The embedded broker: the gateway is suspended while it holds the lock of the file, so no process can write.
    SuspendLockHolder,
    /// The folder of blobs is renamed, and perhaps something else takes its place.
    MoveBlobs(Instead),
    /// The disk of the data folder is full.
    FillDisk,
}

impl What {
    /// All outages of a system with this broker, but for a full disk, which needs a small disk.
    fn all(kind: BrokerKind) -> Vec<Self> {
        let of_servers = Server::of(kind).iter();
        let mut all: Vec<_> =
            of_servers.flat_map(|&server| [Self::SuspendServer(server), Self::KillServer(server)]).collect();
        if kind == BrokerKind::Embedded {
            all.push(Self::SuspendLockHolder);
        }
        all.extend([
            Self::SuspendGateway,
            Self::SuspendScaler,
            Self::WorkerJoinsAndLeaves,
            Self::MoveBlobs(Instead::Nothing),
            Self::MoveBlobs(Instead::Folder),
            Self::MoveBlobs(Instead::File),
            Self::SuspendWorker,
            Self::KillWorker,
        ]);
        all
    }

    /// Whether members leave the group of Kafka only when their sessions expire, because they cannot or did not leave it.
    fn expires_sessions(self, has_classic_groups: bool) -> bool {
        match self {
            Self::KillWorker => true,
            Self::SuspendServer(Server::Broker) | Self::KillServer(Server::Broker) | Self::SuspendWorker => {
                has_classic_groups
            }
            _ => false,
        }
    }

    /// Whether the jobs of a worker need a second attempt.
    fn loses_a_worker(self) -> bool {
        matches!(self, Self::SuspendWorker | Self::KillWorker)
    }
}

impl Plan {
    pub(super) fn new(kind: BrokerKind, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let seconds = std::env::var("MILLRACE_OUTAGE_SECONDS").ok();
        let seconds: Option<u64> = seconds.map(|seconds| seconds.parse().expect("MILLRACE_OUTAGE_SECONDS"));
        let kinds = match std::env::var("MILLRACE_OUTAGE_KINDS") {
            Ok(names) => named(kind, seed, &names),
            Err(_) => share(kind, seed),
        };
        let outages = kinds.into_iter().enumerate().map(|(index, what)| {
            let short = Duration::from_millis(random.random_range(SHORT_MILLISECONDS));
            let lasts = match what {
                _ if index == 0 => LONG,
                What::SuspendWorker => LEASE + short,
                _ => short,
            };
            Outage {
                after: Duration::from_millis(random.random_range(500..2_000)),
                lasts: seconds.map_or(lasts, Duration::from_secs),
                what,
            }
        });
        let max_attempts = if has_one_attempt(seed) { 1 } else { 5 };
        let has_classic_groups = kind == BrokerKind::Kafka && !seed.is_multiple_of(3);
        Self { kind, seed, max_attempts, has_classic_groups, outages: outages.collect() }
    }
}

fn has_one_attempt(seed: u64) -> bool {
    !seed.is_multiple_of(2)
}

/// The outages of this seed: its share of all, in an order that differs with each round of seeds.
fn share(kind: BrokerKind, seed: u64) -> Vec<What> {
    let round = seed.saturating_sub(1) / SEEDS_PER_ROUND;
    let first = round * SEEDS_PER_ROUND + 1;
    let mut all = What::all(kind);
    all.shuffle(&mut StdRng::seed_from_u64(round));
    // Those with the fewest possible seeds come first.
    all.sort_by_key(|what| !what.loses_a_worker());
    let mut shares: Vec<(u64, Vec<What>)> = (first..first + SEEDS_PER_ROUND).map(|seed| (seed, Vec::new())).collect();
    for what in all {
        let allowed = shares.iter_mut().filter(|(seed, _)| !(what.loses_a_worker() && has_one_attempt(*seed)));
        if let Some((_, share)) = allowed.min_by_key(|(_, share)| share.len()) {
            share.push(what);
        }
    }
    let mut own = shares.into_iter().find_map(|(of, share)| (of == seed).then_some(share)).unwrap_or_default();
    own.shuffle(&mut StdRng::seed_from_u64(seed));
    own
}

/// Only the outages with these names.
fn named(kind: BrokerKind, seed: u64, names: &str) -> Vec<What> {
    let is_possible = |what: &What| !(what.loses_a_worker() && has_one_attempt(seed));
    let is_named = |what: &What| names.split(' ').any(|name| name == format!("{what:?}"));
    let all = What::all(kind).into_iter().chain([What::FillDisk]);
    let mut named: Vec<What> = all.filter(|what| is_possible(what) && is_named(what)).collect();
    assert!(!named.is_empty(), "MILLRACE_OUTAGE_KINDS={names} names no outage of {kind}, seed {seed}");
    named.shuffle(&mut StdRng::seed_from_u64(seed));
    named
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, seed, max_attempts, has_classic_groups, outages } = self;
        let groups = if *has_classic_groups { ", classic groups" } else { "" };
        write!(f, "{kind}{groups}, seed {seed}, max_attempts {max_attempts}:")?;
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
            What::SuspendLockHolder => {
                fleet.suspend_lock_holder().await?;
                sleep(self.lasts).await;
                fleet.gateway().resume()?;
            }
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
        let expires_sessions = fleet.is_kafka() && self.what.expires_sessions(fleet.has_classic_groups());
        let took = fleet.full_batches(expires_sessions).await?;
        eprintln!("{self}: full batches after {took:.1?}");
        Ok(())
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

#[test]
fn the_seeds_of_a_round_draw_each_outage_once_and_lose_a_worker_only_if_there_are_attempts() {
    for kind in BrokerKind::ALL {
        for first in [1, 4, 7] {
            let plans: Vec<Vec<What>> = (first..first + SEEDS_PER_ROUND).map(|seed| share(kind, seed)).collect();
            let name = |what: &What| format!("{what:?}");
            let mut drawn: Vec<String> = plans.iter().flatten().map(name).collect();
            let mut all: Vec<String> = What::all(kind).iter().map(name).collect();
            drawn.sort();
            all.sort();
            assert_eq!(drawn, all, "{kind}");
            for (seed, share) in (first..).zip(&plans) {
                assert!(!has_one_attempt(seed) || !share.iter().any(|what| what.loses_a_worker()), "{kind}, {seed}");
            }
        }
    }
}
