//! BullMQ behind fastify on the same Redis, beside the gateway.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use millrace_tests::{BrokerKind, System, repository};
use queue::JobId;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::submits::{TIME, submit};

const BODY: &[u8] = &[b'x'; 1024];
const FILES: [&str; 3] = ["package.json", "package-lock.json", "peer.js"];

/// Measures durable submits of the gateway and of the peer in turn, twice.
pub(crate) async fn run() -> anyhow::Result<()> {
    if Command::new("npm").arg("--version").output().await.is_err() {
        println!("         peer:    left out: BullMQ and fastify need npm and node, and there is no npm");
        return Ok(());
    }
    let folder = install().await?;
    let url = std::env::var("MILLRACE_TEST_REDIS_URL").context("MILLRACE_TEST_REDIS_URL is not set")?;
    for _ in 0..2 {
        let system = System::on(BrokerKind::Redis, "pools: {echo: {model: echo}}")?;
        let gateway = system.gateway().await?;
        let ours = submit(&gateway.url, BODY, TIME).await?.per_second();
        drop(gateway);
        let (peer, peer_url) = start(&folder, &url).await?;
        let theirs = submit(&peer_url, BODY, TIME).await?.per_second();
        drop(peer);
        println!(
            "         peer:    {} bytes: the gateway {ours:.0}/s, BullMQ behind fastify {theirs:.0}/s; {:.2} of the peer",
            BODY.len(),
            ours / theirs
        );
    }
    Ok(())
}

/// Installs the peer into the cache, unless it is there, and returns its folder.
async fn install() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("MILLRACE_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from);
    let (source, folder) = (repository().join("tests/peer"), cache.join("peer"));
    std::fs::create_dir_all(&folder)?;
    let is_same = |file: &&str| std::fs::read(source.join(file)).ok() == std::fs::read(folder.join(file)).ok();
    if FILES.iter().all(is_same) && folder.join("node_modules").is_dir() {
        return Ok(folder);
    }
    for file in FILES {
        std::fs::copy(source.join(file), folder.join(file))?;
    }
    let arguments = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
    let installed = Command::new("npm").args(arguments).current_dir(&folder).output().await?;
    ensure!(installed.status.success(), "npm ci in tests/peer: {}", String::from_utf8_lossy(&installed.stderr));
    Ok(folder)
}

/// Starts the peer, and returns its URL. The process is killed when it is dropped.
async fn start(folder: &Path, redis: &str) -> anyhow::Result<(Child, String)> {
    let mut peer = Command::new("node")
        .args(["peer.js", redis, &format!("peer-{}", JobId::generate())])
        .current_dir(folder)
        .env("NODE_ENV", "production")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start node")?;
    let output = peer.stdout.take().context("no output of the peer")?;
    let line = BufReader::new(output).lines().next_line().await?.unwrap_or_default();
    let url = line.strip_prefix("peer ").with_context(|| format!("the peer printed {line:?} instead of its URL"))?;
    Ok((peer, url.to_owned()))
}
