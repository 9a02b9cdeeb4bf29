//! A system whose parts can be suspended, killed and replaced.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use millrace_tests::{BrokerKind, BrokerUrls, Gateway, PrivateServer, Process, Scaler, System, until};
use nix::sys::statvfs::statvfs;
use tokio::time::sleep;

const WORKERS: usize = 3;

/// The longest time from the end of an outage until all workers run full batches.
const FULL_AGAIN: Duration = Duration::from_secs(5);

/// The same where a group of Kafka waits for members that did not leave, until their sessions expire (docs/limits.md).
const FULL_AGAIN_AFTER_SESSIONS: Duration = Duration::from_secs(20);

/// How often the gateway is suspended until it holds the lock of the embedded broker.
const LOCK_TRIES: usize = 5_000;

/// The number of full batches after which a worker counts as recovered. Two may have been in its window before the outage.
const FULL_BATCHES: u64 = 3;

/// A line of a worker's metrics: the batches of at most 4 items, and all batches. A full batch has 8.
const SMALL: &str = "millrace_worker_batch_items_bucket{pool=\"echo\",le=\"4\"} ";
const ALL: &str = "millrace_worker_batch_items_count{pool=\"echo\"} ";

/// The pool `echo`. Its leases are short, so that an outage of some seconds is longer than a lease. Some of the inputs
/// and outputs are blobs.
const YAML: &str = "
blobs: {inline_limit: 1KiB}
pools:
  echo:
    model: 'echo:200ms:8'
    jobs: {max_attempts: MAX_ATTEMPTS}
    worker: {lease: 4s, retry_max: 4s}
";

/// What is at the place of the folder of blobs while that is away.
#[derive(Debug, Clone, Copy)]
pub(super) enum Instead {
    Nothing,
    /// An empty folder, as with a mount that is missing.
    Folder,
    /// A file, so that each access fails with another error.
    File,
}

/// Only a disk with less free space is filled.
const SMALL_DISK_BYTES: u64 = 1 << 30;

/// A server that a system needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Broker,
    Ledger,
}

impl Server {
    /// The servers of a system with this broker.
    pub(super) fn of(kind: BrokerKind) -> &'static [Self] {
        match kind {
            BrokerKind::Embedded => &[],
            BrokerKind::Redis => &[Self::Broker],
            BrokerKind::RabbitMq | BrokerKind::Kafka => &[Self::Broker, Self::Ledger],
        }
    }
}

/// A gateway, a scaler and some workers, with servers of their own.
pub(super) struct Fleet {
    broker: Option<PrivateServer>,
    ledger: Option<PrivateServer>,
    system: System,
    gateway: Gateway,
    scaler: Scaler,
    workers: Vec<Worker>,
    lost_workers: usize,
    /// Whether the broker is Kafka, and with classic groups.
    is_kafka: bool,
    has_classic_groups: bool,
}

struct Worker {
    process: Process,
    /// The URL of its metrics.
    metrics: String,
}

impl Worker {
    async fn start(system: &System) -> anyhow::Result<Self> {
        let process = system.start("worker", &["--pool", "echo", "--admin", "127.0.0.1:0"])?;
        let line = process.prints("admin http://").await?;
        let admin = line.strip_prefix("admin ").with_context(|| format!("{line:?} names no address"))?;
        let metrics = format!("{admin}/metrics");
        process.prints(" ready ").await?;
        Ok(Self { process, metrics })
    }

    /// The number of full batches that it has run.
    async fn full_batches(&self) -> anyhow::Result<u64> {
        let text = client::plain_http()?.build()?.get(&self.metrics).send().await?.text().await?;
        let value = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.map_or(Ok(0), str::parse::<u64>).with_context(|| format!("{name}{value:?}"))
        };
        Ok(value(ALL)?.saturating_sub(value(SMALL)?))
    }
}

impl Fleet {
    pub(super) async fn start(kind: BrokerKind, max_attempts: u32, has_classic_groups: bool) -> anyhow::Result<Self> {
        let yaml = YAML.replace("MAX_ATTEMPTS", &max_attempts.to_string());
        let servers = Server::of(kind);
        let broker = match servers.contains(&Server::Broker) {
            true => Some(PrivateServer::start(kind).await?),
            false => None,
        };
        let ledger = match servers.contains(&Server::Ledger) {
            true => Some(PrivateServer::start(BrokerKind::Redis).await?),
            false => None,
        };
        let system = match &broker {
            None => System::new(&yaml)?,
            Some(broker) => {
                let has_protocol = kind == BrokerKind::Kafka && !has_classic_groups;
                let protocol = if has_protocol { "?group.protocol=consumer" } else { "" };
                let broker = format!("{}{protocol}", broker.url());
                System::at(BrokerUrls { broker, ledger: ledger.as_ref().map(|ledger| ledger.url().to_owned()) }, &yaml)?
            }
        };
        let gateway = system.gateway().await?;
        let scaler = system.scaler().await?;
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            workers.push(Worker::start(&system).await?);
        }
        let is_kafka = kind == BrokerKind::Kafka;
        Ok(Self { broker, ledger, system, gateway, scaler, workers, lost_workers: 0, is_kafka, has_classic_groups })
    }

    pub(super) fn is_kafka(&self) -> bool {
        self.is_kafka
    }

    pub(super) fn has_classic_groups(&self) -> bool {
        self.has_classic_groups
    }

    pub(super) fn gateway_url(&self) -> &str {
        &self.gateway.url
    }

    pub(super) fn server(&mut self, server: Server) -> &mut PrivateServer {
        let server = match server {
            Server::Broker => self.broker.as_mut(),
            Server::Ledger => self.ledger.as_mut(),
        };
        server.expect("the plan names only servers of this system")
    }

    pub(super) fn gateway(&self) -> &Process {
        &self.gateway.process
    }

    pub(super) fn scaler(&self) -> &Process {
        &self.scaler.process
    }

    /// Suspends the gateway at a moment when it holds the lock of the embedded broker.
    pub(super) async fn suspend_lock_holder(&self) -> anyhow::Result<()> {
        let inode = std::fs::metadata(self.system.folder().join("data/millrace.lock"))?.ino();
        let pid = self.gateway().pid().context("the gateway has ended")?;
        let (pid, file) = (format!(" {pid} "), format!(":{inode} "));
        let is_holder = || {
            let locks = std::fs::read_to_string("/proc/locks")?;
            // A line with an arrow is a process that waits for the lock.
            let mut holders = locks.lines().filter(|line| !line.contains("->"));
            anyhow::Ok(holders.any(|line| line.contains(&pid) && line.contains(&file)))
        };
        for _ in 0..LOCK_TRIES {
            self.gateway().suspend()?;
            if is_holder()? {
                // Its threads stop a little after the signal.
                sleep(Duration::from_millis(20)).await;
                if is_holder()? {
                    return Ok(());
                }
            }
            self.gateway().resume()?;
            sleep(Duration::from_millis(1)).await;
        }
        bail!("the gateway never held the lock in {LOCK_TRIES} tries")
    }

    /// One of the workers.
    pub(super) fn worker(&self) -> &Process {
        &self.workers[0].process
    }

    /// Counts a worker whose jobs may need a second attempt.
    pub(super) fn loses_a_worker(&mut self) {
        self.lost_workers += 1;
    }

    /// The number of workers whose jobs may need a second attempt.
    pub(super) fn lost_workers(&self) -> usize {
        self.lost_workers
    }

    /// Kills a worker and starts another.
    pub(super) async fn replace_worker(&mut self) -> anyhow::Result<()> {
        self.loses_a_worker();
        self.workers.remove(0).process.kill().await?;
        self.workers.push(Worker::start(&self.system).await?);
        Ok(())
    }

    pub(super) async fn one_more_worker(&self) -> anyhow::Result<Process> {
        self.system.worker("echo").await
    }

    /// Takes the folder of blobs away during `outage`. Something else may be at its place meanwhile.
    pub(super) async fn without_blobs(&self, outage: impl Future<Output = ()>, instead: Instead) -> anyhow::Result<()> {
        let folder = self.blobs();
        let away = folder.with_extension("away");
        std::fs::rename(&folder, &away).context("the folder of blobs")?;
        match instead {
            Instead::Nothing => {}
            Instead::Folder => std::fs::create_dir(&folder)?,
            Instead::File => std::fs::write(&folder, "")?,
        }
        outage.await;
        // A write that was under way may have created the folder again. Its blob must not count as written: that shows
        // later, because then an input or a result is missing.
        match instead {
            Instead::File => std::fs::remove_file(&folder)?,
            Instead::Nothing | Instead::Folder => drop(std::fs::remove_dir_all(&folder)),
        }
        ensure!(!folder.exists(), "the other folder of blobs cannot be removed");
        Ok(std::fs::rename(&away, &folder)?)
    }

    /// Fills the disk of the data folder during `outage`.
    pub(super) async fn with_full_disk(&self, outage: impl Future<Output = ()>) -> anyhow::Result<()> {
        let folder = self.system.folder();
        let free_bytes = statvfs(folder)?;
        let free_bytes = free_bytes.blocks_available() * free_bytes.fragment_size();
        ensure!(free_bytes < SMALL_DISK_BYTES, "FillDisk: set TMPDIR to a folder on a disk with less than 1 GiB free");
        let filling = folder.join("filling");
        let mut file = std::fs::File::create(&filling)?;
        for length in [65_536, 512] {
            while file.write_all(&vec![1; length]).is_ok() {}
        }
        outage.await;
        Ok(std::fs::remove_file(&filling)?)
    }

    fn blobs(&self) -> PathBuf {
        self.system.folder().join("data/blobs")
    }

    /// The processes that have ended, with their output.
    pub(super) fn ended_processes(&mut self) -> anyhow::Result<Vec<String>> {
        let named = [("gateway", &mut self.gateway.process), ("scaler", &mut self.scaler.process)];
        let workers = self.workers.iter_mut().map(|worker| ("worker", &mut worker.process));
        let mut ended = Vec::new();
        for (name, process) in named.into_iter().chain(workers) {
            if let Some(status) = process.status()? {
                ended.push(format!("{name}: {status}: {}", process.output().join("\n")));
            }
        }
        Ok(ended)
    }

    /// What the processes have logged.
    pub(super) fn log(&self) -> String {
        let mut log = String::new();
        for (number, worker) in self.workers.iter().enumerate() {
            let _ = writeln!(log, "-- worker {number}\n{}", worker.process.output().join("\n"));
        }
        let _ = writeln!(log, "-- gateway\n{}", self.gateway.process.output().join("\n"));
        let _ = writeln!(log, "-- scaler\n{}", self.scaler.process.output().join("\n"));
        log
    }

    /// Waits until each worker has run some full batches from now on. Returns the time that this took.
    pub(super) async fn full_batches(&self, expires_sessions: bool) -> anyhow::Result<Duration> {
        let limit = if expires_sessions { FULL_AGAIN_AFTER_SESSIONS } else { FULL_AGAIN };
        let counts = || try_join_all(self.workers.iter().map(Worker::full_batches));
        let (start, before) = (Instant::now(), counts().await?);
        let recovered = until("all workers run full batches", async || {
            let now = counts().await?;
            Ok(before.iter().zip(now).all(|(before, now)| now >= before + FULL_BATCHES).then_some(()))
        });
        if let Err(error) = recovered.await {
            bail!("{error}; they ran {before:?}, and now {:?}\n{}", counts().await, self.log());
        }
        let took = start.elapsed();
        ensure!(took <= limit, "full batches came {took:.1?} after the end of the outage\n{}", self.log());
        Ok(took)
    }

    /// Waits until the scaler reports no work.
    pub(super) async fn backlog_returns_to_zero(&self) -> anyhow::Result<()> {
        until("the scaler reports an empty backlog", async || {
            let metrics = self.scaler.metrics().await?;
            let mut backlogs = metrics.iter().filter(|line| line.starts_with("millrace_scaler_backlog{"));
            Ok(backlogs.all(|line| line.ends_with(" 0")).then_some(()))
        })
        .await
    }
}
