//! The worker processes of one pool.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How much longer than its drain timeout a worker that was told to stop may take.
pub(super) const MARGIN: Duration = Duration::from_secs(3);

/// The waits before a worker that ended by itself is started again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A worker that ran for this long was healthy: its end counts as the first.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// As many worker processes as it is told to keep.
pub(super) struct Fleet {
    pool: String,
    program: PathBuf,
    arguments: Vec<String>,
    /// How long one that was told to stop may take.
    grace: Duration,
    /// The workers to be kept, the oldest first; cancelling one stops it.
    kept: Vec<CancellationToken>,
    /// All that have not ended yet.
    supervised: JoinSet<()>,
}

impl Fleet {
    /// No workers yet; each is `program` with `arguments`, and has `grace` to stop.
    pub(super) fn new(pool: String, program: PathBuf, arguments: Vec<String>, grace: Duration) -> Self {
        Self { pool, program, arguments, grace, kept: Vec::new(), supervised: JoinSet::new() }
    }

    /// How many workers are to be kept.
    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.kept.len()).unwrap_or(u32::MAX)
    }

    /// Keeps `size` workers from now on: starts what is missing, tells the youngest of too many to stop.
    pub(super) fn resize(&mut self, size: u32) {
        while self.size() > size
            && let Some(youngest) = self.kept.pop()
        {
            youngest.cancel();
        }
        while self.size() < size {
            let stop = CancellationToken::new();
            self.kept.push(stop.clone());
            let mut command = Command::new(&self.program);
            command.args(&self.arguments).kill_on_drop(true);
            self.supervised.spawn(supervise(self.pool.clone(), command, self.grace, stop));
        }
        // Those that have ended need no more attention.
        while self.supervised.try_join_next().is_some() {}
    }

    /// Stops all workers and waits until they have ended.
    pub(super) async fn stop(mut self) {
        self.resize(0);
        while self.supervised.join_next().await.is_some() {}
    }
}

/// Keeps one worker process alive until `stop`.
async fn supervise(pool: String, mut command: Command, grace: Duration, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() {
        let began = tokio::time::Instant::now();
        match command.spawn() {
            Ok(mut worker) => {
                let ended = tokio::select! {
                    ended = worker.wait() => Some(ended),
                    () = stop.cancelled() => None,
                };
                let Some(ended) = ended else { return end(&pool, worker, grace).await };
                if began.elapsed() >= HEALTHY_AFTER {
                    pause = FIRST_PAUSE;
                }
                tracing::error!(
                    pool,
                    ended = describe(&ended),
                    restart_seconds = pause.as_secs_f64(),
                    "a worker ended"
                );
            }
            Err(error) => tracing::error!(pool, %error, "cannot start a worker"),
        }
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tells a worker to stop, and kills it when it has not after its time.
async fn end(pool: &str, mut worker: Child, grace: Duration) {
    let pid = worker.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid
        && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
    {
        tracing::warn!(pool, pid, %error, "cannot tell a worker to stop");
    }
    match timeout(grace, worker.wait()).await {
        Ok(ended) if ended.as_ref().is_ok_and(ExitStatus::success) => tracing::info!(pool, pid, "a worker stopped"),
        Ok(ended) => tracing::warn!(pool, pid, ended = describe(&ended), "a worker did not stop cleanly"),
        Err(_) => {
            tracing::error!(pool, pid, "a worker did not stop in time and is killed; its jobs come again");
            if let Err(error) = worker.kill().await {
                tracing::error!(pool, pid, %error, "cannot kill a worker");
            }
        }
    }
}

fn describe(ended: &std::io::Result<ExitStatus>) -> String {
    ended.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}
