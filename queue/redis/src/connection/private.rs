//! A Redis server for one test, which may stop it, fill it up or configure it wrongly.
#![allow(clippy::zombie_processes, reason = "a test that cannot start its server panics and ends")]

use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub(crate) struct PrivateRedis {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

impl PrivateRedis {
    /// A server that is not started yet. `options` are arguments for `redis-server`. The server keeps its port.
    pub(crate) fn new(options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self { folder: tempfile::tempdir().unwrap(), port: free_port(), options, process: None }
    }

    /// A server that runs. It gets another port where a process has taken its first one.
    pub(crate) fn started(options: &[&str]) -> Self {
        let mut server = Self::new(options);
        for _ in 0..10 {
            match server.try_start() {
                Ok(()) => return server,
                Err(log) if log.contains("Address already in use") => server.port = free_port(),
                Err(log) => panic!("redis-server did not start:\n{log}"),
            }
        }
        panic!("redis-server found no free port in ten attempts")
    }

    /// Starts the server on its port, and returns when it answers.
    pub(crate) fn start(&mut self) {
        if let Err(log) = self.try_start() {
            panic!("redis-server did not start:\n{log}");
        }
    }

    /// The error contains the server's log.
    fn try_start(&mut self) -> Result<(), String> {
        let mut command = Command::new("redis-server");
        let sentinel = self.options.iter().any(|option| option == "--sentinel");
        if sentinel {
            // The first argument of a Sentinel is the file with its state.
            let file = self.folder.path().join("sentinel.conf");
            std::fs::write(&file, "").unwrap();
            command.arg(file);
        } else {
            command.args(["--appendonly", "yes", "--save", ""]);
        }
        command.args(&self.options).args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.arg("--dir").arg(self.folder.path());
        let process = command.stdout(Stdio::piped()).spawn();
        let mut process = process.expect("these tests need redis-server: apt-get install redis-server");
        let ready = if sentinel { "Sentinel ID is" } else { "Ready to accept connections" };
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        self.process = Some(process);
        let mut log = Vec::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            let is_ready = line.contains(ready);
            log.push(line);
            if is_ready {
                // Continues to read, because a full pipe would block the server.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(());
            }
        }
        self.kill();
        Err(log.join("\n"))
    }

    /// Kills the server as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command on this server, over a new connection.
    pub(crate) async fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(format!("redis://{}", self.address())).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap()
    }
}

/// A free port below the ports that the kernel gives to outgoing connections, so that none of them takes it while a
/// server is down. The second port of a Cluster node, 10,000 above, is free too.
pub(crate) fn free_port() -> u16 {
    let random = |_| 20_000 + (RandomState::new().hash_one(()) % 2_700) as u16;
    let is_free =
        |port: &u16| [*port, port + 10_000].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    (0..100).map(random).find(is_free).expect("a port between 20000 and 22700 is free")
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        self.kill();
    }
}
