//! Broker servers for one test alone, which the test can kill and restart.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{BrokerKind, repository};

/// A server for one test alone, with its data in a temporary folder. The server is killed when this is dropped.
pub struct PrivateServer {
    kind: BrokerKind,
    folder: TempDir,
    url: String,
}

impl PrivateServer {
    /// Starts an empty server, and waits until it serves.
    pub async fn start(kind: BrokerKind) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut server = Self { kind, folder, url: String::new() };
        server.start_again().await?;
        Ok(server)
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills the server as `kill -9` does, and waits for its end. The data stays.
    pub async fn kill(&self) -> anyhow::Result<()> {
        servers(&["stop", &self.path(), "--kill"]).await.map(drop)
    }

    /// Starts the server with the same data and port, and waits until it serves.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.url = servers(&["start", self.kind.name(), &self.path()]).await?;
        Ok(())
    }

    /// Stops all processes of the server for some time, as SIGSTOP does. [`PrivateServer::resume`] lets them run again.
    pub fn suspend(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a suspended server run again.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// The script keeps the number of the server's process group in a file.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(self.folder.path().join("pid"))?;
        let group = text.split_whitespace().next().context("the file pid is empty")?.parse()?;
        Ok(killpg(Pid::from_raw(group), signal)?)
    }

    fn path(&self) -> String {
        self.folder.path().display().to_string()
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let stopping = std::process::Command::new(script()).arg("stop").arg(self.folder.path()).arg("--kill").status();
        if !stopping.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("the server of {} in {} may still run: {stopping:?}", self.kind, self.path());
        }
    }
}

/// Runs `scripts/servers.sh`. Returns its standard output.
async fn servers(arguments: &[&str]) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } = Command::new(script()).args(arguments).output().await?;
    if !status.success() {
        bail!("servers.sh {} failed, {status}:\n{}", arguments.join(" "), String::from_utf8_lossy(&stderr));
    }
    Ok(String::from_utf8(stdout)?.trim().to_owned())
}

fn script() -> PathBuf {
    repository().join("scripts/servers.sh")
}
