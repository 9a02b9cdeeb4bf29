//! The worker processes of one pool.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// The time that a worker has to stop, in addition to its drain timeout.
pub(super) const MARGIN: Duration = Duration::from_secs(3);

/// The shortest and the longest pause before a worker that ended by itself is started again. Each pause is longer than
/// the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A worker that ran for this long was healthy, so the pauses start again with the first.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The worker processes of one pool. Each is restarted until it is stopped.
pub(super) struct Fleet {
    pool: String,
    program: PathBuf,
    arguments: Vec<String>,
    /// The time that a worker has to stop.
    grace: Duration,
    /// The stop tokens of the workers that should run, the oldest first.
    stops: Vec<CancellationToken>,
    /// The tasks of all workers that have not ended, including the ones that are stopping.
    supervised: JoinSet<()>,
}

impl Fleet {
    /// A fleet without workers. A worker is the process `program` with `arguments`, and has `grace` to stop.
    pub(super) fn new(pool: String, program: PathBuf, arguments: Vec<String>, grace: Duration) -> Self {
        Self { pool, program, arguments, grace, stops: Vec::new(), supervised: JoinSet::new() }
    }

    /// The number of workers that should run.
    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.stops.len()).unwrap_or(u32::MAX)
    }

    /// Starts missing workers, or stops the youngest surplus workers, without waiting for them.
    pub(super) fn resize(&mut self, size: u32) {
        while self.size() > size
            && let Some(youngest) = self.stops.pop()
        {
            youngest.cancel();
        }
        while self.size() < size {
            let stop = CancellationToken::new();
            self.stops.push(stop.clone());
            let mut command = Command::new(&self.program);
            command.args(&self.arguments).kill_on_drop(true);
            self.supervised.spawn(supervise(self.pool.clone(), command, self.grace, stop));
        }
        // Frees the tasks that have ended.
        while self.supervised.try_join_next().is_some() {}
    }

    /// Stops all workers and waits until they have ended.
    pub(super) async fn stop(mut self) {
        self.resize(0);
        while self.supervised.join_next().await.is_some() {}
    }
}

/// Restarts one worker process whenever it ends, until `stop`.
async fn supervise(pool: String, mut command: Command, grace: Duration, stop: CancellationToken) {
    let mut pauses = restart_pauses();
    while !stop.is_cancelled() {
        let started = tokio::time::Instant::now();
        let ended = match command.spawn() {
            Ok(mut worker) => {
                let ended = tokio::select! {
                    ended = worker.wait() => Some(ended),
                    () = stop.cancelled() => None,
                };
                let Some(ended) = ended else { return end(&pool, worker, grace).await };
                Ok(ended)
            }
            Err(error) => Err(error),
        };
        if started.elapsed() >= HEALTHY_AFTER {
            pauses = restart_pauses();
        }
        let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
        let restart_seconds = pause.as_secs_f64();
        match ended {
            Ok(ended) => tracing::error!(pool, ended = describe(&ended), restart_seconds, "a worker ended"),
            Err(error) => tracing::error!(pool, %error, restart_seconds, "cannot start a worker"),
        }
        metrics::worker_restarts(&pool);
        stop.run_until_cancelled(sleep(pause)).await;
    }
}

fn restart_pauses() -> ExponentialBackoff {
    ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE).without_max_times().build()
}

/// Sends SIGTERM to a worker, and kills the worker if it has not ended after `grace`.
async fn end(pool: &str, mut worker: Child, grace: Duration) {
    let pid = worker.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid
        && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
    {
        tracing::warn!(pool, pid, %error, "cannot send SIGTERM to a worker");
    }
    match timeout(grace, worker.wait()).await {
        Ok(ended) if ended.as_ref().is_ok_and(ExitStatus::success) => tracing::info!(pool, pid, "a worker stopped"),
        Ok(ended) => tracing::warn!(pool, pid, ended = describe(&ended), "a worker stopped with an error"),
        Err(_) => {
            tracing::error!(pool, pid, "a worker did not stop in time and is killed; its jobs are requeued");
            if let Err(error) = worker.kill().await {
                tracing::error!(pool, pid, %error, "cannot kill a worker");
            }
        }
    }
}

fn describe(ended: &std::io::Result<ExitStatus>) -> String {
    ended.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}
