//! A RabbitMQ server for one test, for settings and failures that would disturb other tests.
#![allow(clippy::zombie_processes, reason = "a test that cannot start its server panics, and ends")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use uuid::Uuid;

use crate::RabbitMqUrl;

/// The folder of the programs themselves on Debian. The scripts on the path change the user.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// Runs the server. Kills its own process group when its input ends, which happens when the test ends.
const RUN: &str = r#""$0" </dev/null 2>/dev/null & read -r _; kill -KILL 0"#;

pub(super) struct Server {
    folder: TempDir,
    name: String,
    pub(super) port: u16,
    tls_port: u16,
    distribution_port: u16,
    running: Option<Child>,
}

impl Server {
    /// Starts a server with lines of `rabbitmq.conf` and terms of `advanced.config`.
    pub(super) fn start(lines: &str, terms: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [port, tls_port, distribution_port] = free_ports();
        fs::write(folder.path().join("plugins"), "[].").unwrap();
        fs::write(folder.path().join("advanced.config"), format!("[{terms}].")).unwrap();
        let at = folder.path().display();
        let lines = lines.replace("FOLDER", &at.to_string()).replace("TLS_PORT", &tls_port.to_string());
        let lines = format!("listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 1MB\n{lines}\n");
        fs::write(folder.path().join("rabbitmq.conf"), lines).unwrap();
        let name = format!("test-{}@localhost", Uuid::now_v7().simple());
        let mut server = Self { folder, name, port, tls_port, distribution_port, running: None };
        server.make_certificates();
        server.run();
        server
    }

    /// Starts it again on the same data.
    pub(super) fn run(&mut self) {
        let mut command = self.command("sh");
        command.args(["-c", RUN, &format!("{}/rabbitmq-server", programs().display())]);
        let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let lines = BufReader::new(running.stdout.take().unwrap()).lines();
        let mut output = Vec::new();
        for line in lines.map_while(Result::ok) {
            if line.contains("completed with") {
                self.running = Some(running);
                return;
            }
            output.push(line);
        }
        panic!("the server did not start: {}", output.join("\n"));
    }

    /// Kills the server, as a power failure would.
    pub(super) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.stdin.take());
            running.wait().unwrap();
        }
    }

    pub(super) fn control(&self, arguments: &[&str]) {
        let mut command = self.command(&format!("{}/rabbitmqctl", programs().display()));
        let output = command.args(["--node", &self.name]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(super) fn url(&self) -> RabbitMqUrl {
        format!("rabbitmq://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// The URL with TLS. The certificate is for `localhost`. The test has its own certificate authority.
    pub(super) fn tls_url(&self, options: &str) -> RabbitMqUrl {
        let options = options.replace("FOLDER", &self.folder.path().display().to_string());
        format!("rabbitmqs://localhost:{}?{options}", self.tls_port).parse().unwrap()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.folder.path().join(name);
        command.env("HOME", self.folder.path());
        command.env("RABBITMQ_NODENAME", &self.name).env("RABBITMQ_DIST_PORT", self.distribution_port.to_string());
        command.env("RABBITMQ_MNESIA_BASE", at("data")).env("RABBITMQ_LOG_BASE", at("log"));
        command.env("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config"));
        command.env("RABBITMQ_CONFIG_FILE", at("rabbitmq"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")).env("RABBITMQ_CONF_ENV_FILE", at("none"));
        command
    }

    fn make_certificates(&self) {
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            let output = command.args(arguments.split(' ')).current_dir(self.folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
        fs::write(self.folder.path().join("names"), "subjectAltName=DNS:localhost").unwrap();
        for name in ["server", "client"] {
            openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN=localhost"));
            let sign = "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
            openssl(&format!("{sign} -in {name}.csr -out {name}.pem"));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn programs() -> PathBuf {
    std::env::var_os("MILLRACE_TEST_RABBITMQ_PROGRAMS").map_or_else(|| PROGRAMS.into(), PathBuf::from)
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
