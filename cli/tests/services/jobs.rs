//! `millrace status`, `get`, `wait` and `cancel`, and the exit codes of commands.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::service::{Service, command, configure};

/// A gateway without a worker.
struct Running {
    folder: TempDir,
    url: String,
    _gateway: Service,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path(), None);
        std::fs::write(folder.path().join("input.txt"), "hello").unwrap();
        let mut gateway = Service::start(command("gateway", folder.path()));
        let url = gateway.line("gateway ");
        Self { folder, url, _gateway: gateway }
    }

    /// The exit code and the standard output of a command.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        let output = command.args(arguments).env("MILLRACE_GATEWAY", &self.url).current_dir(&self.folder).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// The exit code and the document of a command that prints JSON.
    fn json(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let (code, printed) = self.run(&[arguments, &["--json"]].concat());
        (code, serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}")))
    }

    /// Submits a job. Returns the exit code and the id.
    fn submit(&self, timeout: &str) -> (Option<i32>, String) {
        let (code, job) = self.json(&["submit", "--pool", "echo", "--timeout", timeout, "input.txt"]);
        (code, job["id"].as_str().unwrap().to_owned())
    }
}

#[test]
fn a_job_is_followed_fetched_and_cancelled_and_the_exit_code_is_its_answer() {
    let running = Running::start();
    let (code, id) = running.submit("300ms");
    assert_eq!(code, Some(3), "submit waits for a result");
    let (code, job) = running.json(&["status", &id]);
    assert_eq!((code, &job["state"]), (Some(0), &"queued".into()));
    assert_eq!(running.run(&["get", &id]), (Some(4), String::new()));
    assert_eq!(running.run(&["wait", &id, "--timeout", "10ms"]), (Some(4), String::new()));
    let (code, job) = running.json(&["cancel", &id]);
    assert_eq!((code, &job["state"]), (Some(0), &"cancelled".into()));
    assert_eq!(running.run(&["get", &id]), (Some(3), String::new()));
    let (code, job) = running.json(&["wait", &id]);
    assert_eq!((code, &job["state"]), (Some(3), &"cancelled".into()));

    let mut worker = command("worker", running.folder.path());
    worker.args(["--pool", "echo"]);
    let _worker = Service::start(worker);
    let (code, id) = running.submit("1m");
    assert_eq!(code, Some(0));
    assert_eq!(running.run(&["get", &id]), (Some(0), "hello".to_owned()));
    assert_eq!(running.run(&["get", &id, "--output", "result"]), (Some(0), String::new()));
    assert_eq!(std::fs::read_to_string(running.folder.path().join("result")).unwrap(), "hello");
    let (code, text) = running.run(&["wait", &id]);
    assert!(code == Some(0) && text.contains("state      succeeded"), "{text}");
    assert_eq!(running.run(&["cancel", &id]).0, Some(3), "it has ended");
}

#[test]
fn a_command_that_could_not_run_ends_with_1_and_a_wrong_use_with_2() {
    let running = Running::start();
    for command in ["status", "get", "wait", "cancel"] {
        assert_eq!(running.run(&[command, "ghost"]), (Some(1), String::new()), "{command}: the job is unknown");
        let elsewhere = ["--gateway", "http://127.0.0.1:1"];
        assert_eq!(running.run(&[&[command, "a"], &elsewhere[..]].concat()).0, Some(1), "{command}: no gateway");
        assert_eq!(running.run(&[command]).0, Some(2), "{command}: there is no job");
    }
    // What a check finds differs from a check that could not run.
    let missing = ["doctor", "--set", "broker=embedded:none", "--set", "pools.echo.model=none"];
    assert_eq!(running.run(&missing).0, Some(3));
    assert_eq!(running.run(&["doctor", "--set", "broker=none"]).0, Some(1));
    std::fs::write(running.folder.path().join("jobs.csv"), "time\n0\n60\n").unwrap();
    let simulate = ["simulate", "jobs.csv", "--latency", "5s", "--batch-base", "7ms", "--batch-item", "23ms"];
    let simulate = [&simulate[..], &["--batch-limit", "8", "--require"]].concat();
    assert_eq!(running.run(&[&simulate[..], &["attainment>=0"]].concat()).0, Some(0));
    assert_eq!(running.run(&[&simulate[..], &["attainment>=1"]].concat()).0, Some(3));
    assert_eq!(running.run(&[&simulate[..], &["other:attainment>=0"]].concat()).0, Some(1));
}
