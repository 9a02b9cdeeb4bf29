//! A gateway with TLS.

use std::path::Path;
use std::process::Command;

use crate::certificates::{Authority, authority, certify};
use crate::service::{Service, command, configure};

/// What curl prints of an answer: its HTTP version and its status. `None`: there is no answer.
fn curl(folder: &Path, authority: &Authority, url: &str, options: &[&str]) -> Option<String> {
    std::fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    let mut command = Command::new("curl");
    command.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_version} %{http_code}", "--cacert"]);
    let output = command.arg(folder.join("ca.crt")).args(options).arg(url).output().expect("these tests need curl");
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_gateway_with_tls_serves_https_and_takes_a_renewed_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (authority("authority"), authority("authority"));
    certify(&first, &["localhost"], folder.path(), "tls");
    configure(folder.path(), Some(""));
    let mut gateway = Service::start(command("gateway", folder.path()));
    let url = gateway.line("gateway https://127.0.0.1:");
    let url = format!("https://localhost:{url}/readyz");
    let ask = |authority: &Authority, options: &[&str]| curl(folder.path(), authority, &url, options);
    assert_eq!(ask(&first, &["--http2"]).as_deref(), Some("2 200"));
    assert_eq!(ask(&first, &["--http1.1"]).as_deref(), Some("1.1 200"));
    assert_eq!(ask(&second, &[]), None);
    certify(&second, &["localhost"], folder.path(), "tls");
    while ask(&second, &[]).is_none() {}
    assert_eq!(ask(&first, &[]), None);
}

#[test]
fn a_file_that_cannot_be_used_is_named_before_the_gateway_listens() {
    let folder = tempfile::tempdir().unwrap();
    certify(&authority("authority"), &["localhost"], folder.path(), "tls");
    configure(folder.path(), Some(""));
    std::fs::write(folder.path().join("tls.key"), "no key").unwrap();
    let output = command("gateway", folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let key = folder.path().join("tls.key");
    assert!(!output.status.success() && output.stdout.is_empty(), "{text}");
    assert!(text.contains(&format!("gateway.tls.key: {key:?} holds no usable private key in PEM")), "{text}");
}
