//! A process of the program under test.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a process may take to say or do what it must: far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process, and all that it has written. Dropped, it is killed.
pub struct Process {
    name: String,
    child: Child,
    lines: watch::Receiver<usize>,
    written: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `millrace` with `arguments` in `folder`.
    pub fn start(folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let program = program()?;
        let mut child = Command::new(&program)
            .args(arguments)
            .current_dir(folder)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let written = Arc::<Mutex<Vec<String>>>::default();
        let (count, lines) = watch::channel(0);
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            tokio::spawn(collect(stdout, Arc::clone(&written), count.clone()));
            tokio::spawn(collect(stderr, Arc::clone(&written), count));
        }
        Ok(Self { name: arguments.join(" "), child, lines, written })
    }

    /// Waits for a line, past or future, that contains `text`; the whole line.
    pub async fn says(&self, text: &str) -> anyhow::Result<String> {
        self.says_after(0, text).await.map(|(_, line)| line)
    }

    /// As [`Process::says`], among the lines from number `first` on; also the number of the line.
    pub async fn says_after(&self, first: usize, text: &str) -> anyhow::Result<(usize, String)> {
        let mut lines = self.lines.clone();
        let wanted = async {
            loop {
                lines.borrow_and_update();
                let found = self.output().into_iter().enumerate().skip(first).find(|(_, line)| line.contains(text));
                match found {
                    Some(found) => return Some(found),
                    None => lines.changed().await.ok()?,
                }
            }
        };
        match timeout(PATIENCE, wanted).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!("{} ended without saying {text:?}; it said:\n{}", self.name, self.output().join("\n")),
            Err(_) => bail!("{} did not say {text:?} in {PATIENCE:?} but:\n{}", self.name, self.output().join("\n")),
        }
    }

    /// All lines so far, of both streams.
    pub fn output(&self) -> Vec<String> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> anyhow::Result<()> {
        let pid = self.child.id().with_context(|| format!("{} has ended already", self.name))?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?)
    }

    /// Waits until it has ended; how it did, and all that it had written.
    pub async fn ended(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .with_context(|| format!("{} did not end in {PATIENCE:?}", self.name))??;
        // Both readers let go of their sender when the pipes are empty.
        while self.lines.changed().await.is_ok() {}
        Ok((status, self.output().join("\n")))
    }
}

async fn collect(pipe: impl AsyncRead + Unpin, written: Arc<Mutex<Vec<String>>>, count: watch::Sender<usize>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        count.send_modify(|count| *count += 1);
    }
}

/// The program under test: built beside the tests, or named by `MILLRACE_PROGRAM`.
pub fn program() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os("MILLRACE_PROGRAM") {
        return Ok(program.into());
    }
    let here = std::env::current_exe()?;
    let folder = here.ancestors().find(|folder| folder.join("millrace").is_file());
    folder.map(|folder| folder.join("millrace")).with_context(|| {
        format!("there is no program millrace beside {}: build it first (cargo build --release)", here.display())
    })
}
