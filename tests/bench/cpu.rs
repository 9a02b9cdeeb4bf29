//! The processor time of the processes under test and of the servers behind them.

use std::path::Path;

use anyhow::Context;
use millrace_tests::BrokerKind;

/// Linux reports processor time in ticks of this length, on every architecture that this program runs on.
const TICK_MICROS: u64 = 10_000;

/// Processes, each with its name and the processor time that it had used at the start.
pub(crate) struct CpuMeter(Vec<(String, u32, u64)>);

impl CpuMeter {
    /// Starts to measure these processes, and the servers of `kind` that run on this machine.
    pub(crate) fn start(kind: BrokerKind, processes: &[(&str, Option<u32>)]) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        for (name, pid) in processes {
            found.push(((*name).to_owned(), pid.with_context(|| format!("the {name} has ended"))?));
        }
        found.push(("this load generator".to_owned(), std::process::id()));
        for server in servers(kind) {
            if let Some(pid) = port_of(server).and_then(listener) {
                found.push((server.name().to_owned(), pid));
            }
        }
        let started = found.into_iter().map(|(name, pid)| Ok((name, pid, micros(pid)?)));
        Ok(Self(started.collect::<anyhow::Result<_>>()?))
    }

    /// The processor time per job of each process since the start.
    pub(crate) fn per_job(&self, jobs: u64) -> anyhow::Result<String> {
        let mut parts = Vec::new();
        for (name, pid, started) in &self.0 {
            parts.push(format!("{name} {:.0} µs", (micros(*pid)? - started) as f64 / jobs.max(1) as f64));
        }
        Ok(format!("                  CPU per job: {}", parts.join(", ")))
    }
}

/// The servers of a broker and of its ledger.
fn servers(kind: BrokerKind) -> Vec<BrokerKind> {
    match kind {
        BrokerKind::Embedded => Vec::new(),
        BrokerKind::Redis => vec![kind],
        BrokerKind::RabbitMq | BrokerKind::Kafka => vec![kind, BrokerKind::Redis],
    }
}

/// The port of the server that the environment names.
fn port_of(kind: BrokerKind) -> Option<u16> {
    let url = std::env::var(format!("MILLRACE_TEST_{}_URL", kind.name().to_uppercase())).ok()?;
    reqwest::Url::parse(&url).ok()?.port()
}

/// The process of this machine that listens on a port. `None`: there is none, or this user may not see it.
fn listener(port: u16) -> Option<u32> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            // The second field is the local address, the fourth the state (0A: listening), the tenth the socket.
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, "0A", _, _, _, _, _, socket, ..] = fields[..] else { continue };
            if local.ends_with(&format!(":{port:04X}")) {
                sockets.push(format!("socket:[{socket}]"));
            }
        }
    }
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.find(|pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|target| is_one_of(&sockets, &target))
    })
}

fn is_one_of(sockets: &[String], target: &Path) -> bool {
    sockets.iter().any(|socket| Path::new(socket) == target)
}

/// The processor time of a process so far, in user mode and in the kernel.
pub(crate) fn micros(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before the last parenthesis may contain any character.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).with_context(|| format!("/proc/{pid}/stat cannot be read"))?;
    Ok((user + system) * TICK_MICROS)
}
