//! A process of the program under test.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// The time limit for a process to print a line or to end. It is far longer than needed, so only a fault is slow.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running process and its output. The process is killed when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    line_count: watch::Receiver<usize>,
    /// Shared with the tasks that read its pipes.
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
        let (count, line_count) = watch::channel(0);
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            tokio::spawn(collect(stdout, Arc::clone(&written), count.clone()));
            tokio::spawn(collect(stderr, Arc::clone(&written), count));
        }
        Ok(Self { name: arguments.join(" "), child, line_count, written })
    }

    /// Waits for a line that contains `text`, and returns the line. Lines that are already written count too.
    pub async fn prints(&self, text: &str) -> anyhow::Result<String> {
        self.prints_after(0, text).await.map(|(_, line)| line)
    }

    /// Like [`Process::prints`], for lines from number `first` on. Also returns the number of the line.
    pub async fn prints_after(&self, first: usize, text: &str) -> anyhow::Result<(usize, String)> {
        let mut line_count = self.line_count.clone();
        let found = async {
            loop {
                line_count.borrow_and_update();
                let found = self.output().into_iter().enumerate().skip(first).find(|(_, line)| line.contains(text));
                match found {
                    Some(found) => return Some(found),
                    None => line_count.changed().await.ok()?,
                }
            }
        };
        match timeout(TIMEOUT, found).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => {
                bail!("{} ended and did not print {text:?}; its output:\n{}", self.name, self.output().join("\n"))
            }
            Err(_) => bail!(
                "{} did not print {text:?} within {TIMEOUT:?}; its output:\n{}",
                self.name,
                self.output().join("\n")
            ),
        }
    }

    /// All lines so far, from both streams.
    pub fn output(&self) -> Vec<String> {
        self.written.lock().clone()
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills the process as `kill -9` does, and waits for its end.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().with_context(|| format!("{} has ended already", self.name))?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Stops the process for some time, as SIGSTOP does. [`Process::resume`] lets it run again.
    pub fn suspend(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a suspended process run again.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// The status with which the process has ended; `None` while it runs.
    pub fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end of the process. Returns its status and its output.
    pub async fn ended(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let status = timeout(TIMEOUT, self.child.wait())
            .await
            .with_context(|| format!("{} did not end within {TIMEOUT:?}", self.name))??;
        // Both tasks drop their sender when the pipes are empty.
        while self.line_count.changed().await.is_ok() {}
        Ok((status, self.output().join("\n")))
    }
}

async fn collect(pipe: impl AsyncRead + Unpin, written: Arc<Mutex<Vec<String>>>, count: watch::Sender<usize>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        written.lock().push(line);
        count.send_modify(|count| *count += 1);
    }
}

/// The program under test: the one that `MILLRACE_PROGRAM` names, or the one beside the tests.
pub fn program() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os("MILLRACE_PROGRAM") {
        return Ok(program.into());
    }
    let here = std::env::current_exe()?;
    let folder = here.ancestors().find(|folder| folder.join("millrace").is_file());
    folder.map(|folder| folder.join("millrace")).with_context(|| {
        format!("there is no program millrace beside {}: run `cargo build --release` first", here.display())
    })
}
