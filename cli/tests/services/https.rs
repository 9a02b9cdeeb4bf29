//! The commands that call a gateway and a scaler with TLS.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::certificates::{authority, certify};
use crate::service::{Service, command, configure};

/// Everything on this machine, with a certificate of `ca.crt` if it has TLS.
struct Running {
    folder: TempDir,
    _service: Service,
    gateway: String,
    admin: String,
}

impl Running {
    /// The certificate is for `host`. `tls` has further members of the settings for TLS. `None`: there is no TLS.
    fn start(folder: TempDir, host: &str, tls: Option<&str>) -> Self {
        let issuer = authority("servers");
        std::fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        certify(&issuer, &[host], folder.path(), "tls");
        std::fs::write(folder.path().join("other.crt"), authority("others").pem()).unwrap();
        std::fs::write(folder.path().join("input.txt"), "hello").unwrap();
        configure(folder.path(), tls);
        let mut command = command("up", folder.path());
        command.args(["--admin", "127.0.0.1:0"]);
        let mut service = Service::start(command);
        let (admin, gateway) = (service.line("admin "), service.line("gateway "));
        Self { folder, _service: service, gateway, admin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command, without variables of the environment that name other certificates.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        let variables =
            ["MILLRACE_CA_FILE", "MILLRACE_CERT_FILE", "MILLRACE_KEY_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR"];
        for variable in variables {
            command.env_remove(variable);
        }
        command.args(arguments).current_dir(self.folder.path());
        command.env("MILLRACE_GATEWAY", &self.gateway).env("MILLRACE_SCALER_ADMIN", &self.admin);
        command
    }

    fn submits(&self, more: &[&str]) -> Result<String, String> {
        result_of(self.command(&["submit", "--pool", "echo", "--timeout", "1m", "--json", "input.txt"]).args(more))
    }
}

/// The standard output of a command that succeeds, or the standard error of one that fails.
fn result_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let [printed, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    if output.status.success() { Ok(printed) } else { Err(errors) }
}

fn start(tls: Option<&str>) -> Running {
    Running::start(tempfile::tempdir().unwrap(), "127.0.0.1", tls)
}

/// Refused before the time limit of the command.
fn refused(result: Result<String, String>, url: &str, parts: &[&str]) {
    let text = result.unwrap_err();
    assert!(text.contains(url) && parts.iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn commands_reach_a_gateway_and_a_scaler_with_a_certificate_of_a_private_authority() {
    let running = start(Some(""));
    let ca = ["--ca-file", "ca.crt"];
    let printed = running.submits(&ca).unwrap();
    let job: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&job["state"], &job["result"]), (&"succeeded".into(), &"hello".into()), "{printed}");
    let id = job["id"].as_str().unwrap();
    let waited = result_of(running.command(&["wait", id]).args(ca)).unwrap();
    assert!(waited.contains("succeeded"), "{waited}");
    assert_eq!(result_of(running.command(&["get", id]).args(ca)).unwrap(), "hello");
    let listed = result_of(running.command(&["dead", "list"]).args(ca)).unwrap();
    assert_eq!(listed, "no dead jobs\n");
    let explained = result_of(running.command(&["explain", "echo"]).env("MILLRACE_CA_FILE", running.path("ca.crt")));
    assert!(explained.as_ref().is_ok_and(|text| text.contains("local/echo: ")), "{explained:?}");
    // The authorities of the system.
    let of_system = running.command(&["dead", "list"]).env("SSL_CERT_FILE", running.path("ca.crt")).output().unwrap();
    assert!(of_system.status.success(), "{of_system:?}");
}

#[test]
fn an_unknown_authority_is_an_error_with_the_url_the_reason_and_the_way_out() {
    let running = start(Some(""));
    let parts = ["no trusted authority has issued its certificate", "--ca-file"];
    refused(running.submits(&[]), &running.gateway, &parts);
    refused(running.submits(&["--ca-file", "other.crt"]), &running.gateway, &parts);
    refused(result_of(&mut running.command(&["dead", "list"])), &running.gateway, &parts);
    refused(result_of(&mut running.command(&["explain", "echo"])), &running.admin, &parts);
    let elsewhere = Running::start(tempfile::tempdir().unwrap(), "elsewhere", Some(""));
    let result = elsewhere.submits(&["--ca-file", "ca.crt"]);
    refused(result, &elsewhere.gateway, &["its certificate is not valid", "127.0.0.1", "elsewhere"]);
}

#[test]
fn the_wrong_scheme_is_named() {
    let (with, without) = (start(Some("")), start(None));
    let plain = with.gateway.replace("https://", "http://");
    refused(with.submits(&["--gateway", &plain]), &plain, &["starts with https://"]);
    let plain = with.admin.replace("https://", "http://");
    refused(result_of(&mut with.command(&["explain", "echo", "--admin", &plain])), &plain, &["starts with https://"]);
    let tls = without.gateway.replace("http://", "https://");
    refused(without.submits(&["--gateway", &tls]), &tls, &["does not speak TLS", "starts with http://"]);
    let tls = without.admin.replace("http://", "https://");
    refused(result_of(&mut without.command(&["explain", "echo", "--admin", &tls])), &tls, &["does not speak TLS"]);
}

#[test]
fn a_server_that_demands_a_client_certificate_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let (clients, others) = (authority("clients"), authority("others"));
    let client_ca = folder.path().join("clients.crt");
    std::fs::write(&client_ca, clients.pem()).unwrap();
    certify(&clients, &["client"], folder.path(), "mine");
    certify(&others, &["client"], folder.path(), "theirs");
    let running = Running::start(folder, "127.0.0.1", Some(&format!(", client_ca: {client_ca:?}")));
    let ca = ["--ca-file", "ca.crt"];
    let mine = [&ca[..], &["--cert-file", "mine.crt", "--key-file", "mine.key"]].concat();
    running.submits(&mine).unwrap();
    let explained = result_of(running.command(&["explain", "echo"]).args(&mine));
    assert!(explained.is_ok(), "{explained:?}");
    let parts = ["it demands a client certificate", "--cert-file and --key-file"];
    refused(running.submits(&ca), &running.gateway, &parts);
    let theirs = [&ca[..], &["--cert-file", "theirs.crt", "--key-file", "theirs.key"]].concat();
    refused(running.submits(&theirs), &running.gateway, &parts);
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_option() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = authority("servers");
    certify(&issuer, &["client"], folder.path(), "a");
    certify(&issuer, &["client"], folder.path(), "b");
    std::fs::write(folder.path().join("text"), "no certificate").unwrap();
    let message = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(["dead", "list", "--gateway", "https://127.0.0.1:1"]).current_dir(folder.path());
        result_of(command.args(arguments)).unwrap_err()
    };
    for (arguments, expected) in [
        (&["--ca-file", "none"][..], r#"--ca-file: "none" cannot be read: No such file"#),
        (&["--ca-file", "text"], r#"--ca-file: "text" holds no certificate in PEM"#),
        (&["--cert-file", "text", "--key-file", "a.key"], r#"--cert-file: "text" holds no certificate in PEM"#),
        (&["--cert-file", "a.crt", "--key-file", "text"], r#"--key-file: "text" holds no usable private key in PEM"#),
        (&["--cert-file", "a.crt", "--key-file", "b.key"], r#"--key-file: "b.key" does not match the certificate"#),
        (&["--cert-file", "a.crt"], "--key-file: is missing; --cert-file needs it"),
        (&["--key-file", "a.key"], "--cert-file: is missing; --key-file needs it"),
    ] {
        let text = message(arguments);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}
