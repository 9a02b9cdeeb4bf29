//! Services whose outputs are closed.

use std::process::Stdio;

use crate::service::{Service, command, configure};

/// A pipe without a reader.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// Each of them logs as soon as it runs.
#[test]
fn a_service_goes_on_when_the_reader_of_its_log_closes_the_pipe() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), None);
    for (service, line) in [("up", "gateway http"), ("gateway", "gateway http"), ("scaler", "scaler grpc")] {
        let mut command = command(service, folder.path());
        command.env("RUST_LOG", "debug");
        let mut service = Service::start_with(command, closed());
        service.line(line);
        assert!(service.stop().success(), "{line}");
    }
    let mut command = command("worker", folder.path());
    command.args(["--pool", "echo", "--admin", "127.0.0.1:0"]).env("RUST_LOG", "debug");
    let mut worker = Service::start_with(command, closed());
    worker.line("admin http");
    assert!(worker.stop().success());
}
