//! `millrace gateway` with TLS, as its operator sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

struct Gateway {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    /// The rest of the first line that starts with `text`.
    fn line(&mut self, text: &str) -> String {
        let line =
            self.lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(text).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no line starts with {text:?}"))
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
    params.distinguished_name.push(DnType::CommonName, "authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certify(authority: &Authority, folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), params.signed_by(&key, authority).unwrap().pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
}

/// A configuration in this folder, with TLS for the gateway.
fn configuration(folder: &Path) -> PathBuf {
    let path = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "broker: 'embedded:{data}'\nblobs: {{folder: null}}\npools: {{echo: {{model: echo}}}}\n\
         gateway: {{listen: '127.0.0.1:0', tls: {{certificate: '{crt}', key: '{key}', reload_interval: 20ms}}}}\n",
        data = path("data"),
        crt = path("tls.crt"),
        key = path("tls.key"),
    );
    std::fs::write(folder.join("millrace.yaml"), text).unwrap();
    folder.join("millrace.yaml")
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(["gateway", "--config"]).arg(configuration(folder)).stdout(Stdio::piped());
    command
}

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
    let (first, second) = (authority(), authority());
    certify(&first, folder.path());
    let mut process = command(folder.path()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut gateway = Gateway { process, lines };
    let url = gateway.line("gateway https://127.0.0.1:");
    let url = format!("https://localhost:{url}/readyz");
    let ask = |authority: &Authority, options: &[&str]| curl(folder.path(), authority, &url, options);
    assert_eq!(ask(&first, &["--http2"]).as_deref(), Some("2 200"));
    assert_eq!(ask(&first, &["--http1.1"]).as_deref(), Some("1.1 200"));
    assert_eq!(ask(&second, &[]), None);
    certify(&second, folder.path());
    while ask(&second, &[]).is_none() {}
    assert_eq!(ask(&first, &[]), None);
}

#[test]
fn a_file_that_cannot_be_used_is_named_before_the_gateway_listens() {
    let folder = tempfile::tempdir().unwrap();
    certify(&authority(), folder.path());
    std::fs::write(folder.path().join("tls.key"), "no key").unwrap();
    let output = command(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let key = folder.path().join("tls.key");
    assert!(!output.status.success() && output.stdout.is_empty(), "{text}");
    assert!(text.contains(&format!("gateway.tls.key: {key:?} holds no usable private key in PEM")), "{text}");
}
