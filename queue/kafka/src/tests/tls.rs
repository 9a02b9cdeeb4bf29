//! TLS and passwords, on a server of its own.

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::{acknowledge, consumer, publish};
use crate::fixture::KafkaFixture;
use queue::Error;
use queue_contract::{Fixture, jobs, pool, soon};

/// A server with the listeners SSL and SASL_SSL, whose user is `me` with the password `hunter2`.
struct TlsServer {
    folder: TempDir,
    /// The ports of plain text, SSL and SASL_SSL.
    ports: [u16; 3],
}

impl TlsServer {
    fn start() -> Self {
        let listeners = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(listeners);
        let server = Self { folder: tempfile::tempdir().unwrap(), ports };
        let tls = server.folder.path().join("tls");
        std::fs::create_dir(&tls).unwrap();
        certify(&tls);
        std::fs::write(tls.join("ports"), format!("{} {}\n", ports[1], ports[2])).unwrap();
        std::fs::write(tls.join("user"), "name=me,password=hunter2").unwrap();
        server.script(&["start", "kafka"], &[&ports[0].to_string()]);
        server
    }

    fn script(&self, before: &[&str], after: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/servers.sh");
        let mut command = Command::new(script);
        let output = command.args(before).arg(self.folder.path()).args(after).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join("tls").join(name).display().to_string()
    }

    /// The fixture of clients that present a certificate.
    fn with_certificate(&self, options: &str) -> KafkaFixture {
        let port = self.ports[1];
        let own = format!(
            "ssl.certificate.location={}&ssl.key.location={}",
            self.file("client.crt"),
            self.file("client.key")
        );
        KafkaFixture::at(&format!("kafka://localhost:{port}?security.protocol=SSL&{own}{options}"))
    }

    /// The fixture of clients that present a password.
    fn with_password(&self, password: &str) -> KafkaFixture {
        let (port, ca) = (self.ports[2], self.file("ca.crt"));
        KafkaFixture::at(&format!(
            "kafka://localhost:{port}?security.protocol=SASL_SSL&sasl.mechanism=SCRAM-SHA-512&sasl.username=me&\
             sasl.password={password}&ssl.ca.location={ca}"
        ))
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.script(&["stop"], &["--kill"]);
    }
}

/// Writes an authority, and certificates of a server and of a client.
fn certify(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("ca.crt", &authority.pem());
    // The last one is in the key store of the server.
    for name in ["client", "server"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem());
        write(&format!("{name}.crt"), &certificate);
        write(&format!("{name}.key"), &key);
        write("keystore.pem", &format!("{key}{certificate}"));
    }
}

/// Publishes a job and receives it.
async fn carries_jobs(fixture: &KafkaFixture) {
    let process = fixture.open().await;
    let jobs = jobs(fixture, 1);
    soon(publish(&process, &jobs)).await;
    let consumer = consumer(&process).await;
    let received = soon(consumer.receive(1)).await.unwrap();
    assert_eq!(received[0].job, jobs[0]);
    acknowledge(&*consumer, received).await;
}

/// The error of a publication and of a reading.
async fn refusals(fixture: &KafkaFixture) -> [Error; 2] {
    let process = fixture.open().await;
    let (producer, gauge) = (process.broker.producer().await.unwrap(), process.broker.gauge().await.unwrap());
    let (jobs, pools) = (jobs(fixture, 1), [pool()]);
    let (published, mut read) = tokio::join!(soon(producer.publish(&jobs)), soon(gauge.depths(&pools)));
    [published.unwrap_err(), read.remove(0).unwrap_err()]
}

#[tokio::test]
async fn jobs_go_over_tls_and_only_with_a_certificate_or_a_password_to_a_server_that_is_trusted() {
    #[allow(clippy::disallowed_methods, reason = "starting a server blocks, and only this test waits for it")]
    let server = tokio::task::spawn_blocking(TlsServer::start).await.unwrap();
    let ca = format!("&ssl.ca.location={}", server.file("ca.crt"));
    carries_jobs(&server.with_certificate(&ca)).await;
    carries_jobs(&server.with_password("hunter2")).await;

    // The authorities of the system do not include that of the server.
    let (wrong, distrusting) = (server.with_password("hunter3"), server.with_certificate(""));
    let (wrong, distrusting) = tokio::join!(refusals(&wrong), refusals(&distrusting));
    for error in wrong {
        assert!(error.kind().is_outage() && error.to_string().contains("uthentication"), "{error}");
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
    for error in distrusting {
        assert!(error.kind().is_outage() && error.to_string().contains("ertificate"), "{error}");
    }
}
