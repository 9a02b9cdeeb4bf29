//! Clients of a scaler with TLS, and the renewal of certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::*;

/// The time limit for a connection to fail. It is far longer than needed.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(20);

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct KeyAndCertificate {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> KeyAndCertificate {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        KeyAndCertificate { certificate, key: key.serialize_pem() }
    }

    /// A client that trusts this authority, and presents a certificate if `own` is given.
    fn client(&self, own: Option<&KeyAndCertificate>) -> ClientTlsConfig {
        let config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.0.pem())).domain_name("localhost");
        match own {
            Some(own) => config.identity(Identity::from_pem(&own.certificate, &own.key)),
            None => config,
        }
    }
}

/// A mounted secret as in Kubernetes: the files are links through `..data` to the folder of one version.
struct Mount {
    folder: TempDir,
    versions: usize,
}

impl Mount {
    fn new(certified: &KeyAndCertificate, client_ca: &str) -> Self {
        let mut mount = Self { folder: tempfile::tempdir().unwrap(), versions: 0 };
        mount.renew(certified, client_ca);
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces all files by a new version in one step.
    fn renew(&mut self, certified: &KeyAndCertificate, client_ca: &str) {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        std::fs::create_dir(self.path(&version)).unwrap();
        for (name, text) in [("tls.crt", &*certified.certificate), ("tls.key", &certified.key), ("ca.crt", client_ca)] {
            std::fs::write(self.path(&version).join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(&version, self.path("..data_new")).unwrap();
        std::fs::rename(self.path("..data_new"), self.path("..data")).unwrap();
    }

    /// A configuration with these files; with `mutual`, clients must present a certificate.
    fn yaml(&self, mutual: bool) -> String {
        let path = |name| self.path(name).display().to_string();
        let client_ca = if mutual { format!(", client_ca: '{}'", path("ca.crt")) } else { String::new() };
        let (certificate, key) = (path("tls.crt"), path("tls.key"));
        let tls = format!("tls: {{certificate: '{certificate}', key: '{key}', reload_interval: 50ms{client_ca}}}");
        YAML.replace("20ms", &format!("20ms, {tls}"))
    }
}

async fn client(scaler: &Scaler, tls: Option<ClientTlsConfig>) -> anyhow::Result<Keda> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", scaler.address))?;
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(Keda { client: ExternalScalerClient::new(endpoint.connect().await?) })
}

/// Whether the scaler answers a client that connects in this way.
async fn is_answered(scaler: &Scaler, tls: Option<ClientTlsConfig>) -> bool {
    let call = async { anyhow::Ok(client(scaler, tls).await?.spec(&object("echo")).await?) };
    timeout(FAILURE_TIMEOUT, call).await.expect("the call hangs").is_ok()
}

/// The certificate that the scaler presents on a new connection.
async fn shown(scaler: &Scaler, authority: &Authority) -> anyhow::Result<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(&scaler.address).await?;
    let connection = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, socket).await?;
    let certificates = connection.get_ref().1.peer_certificates().unwrap();
    Ok(certificates[0].clone())
}

/// Waits until the scaler presents this certificate on new connections.
async fn until_shown(scaler: &Scaler, authority: &Authority, certified: &KeyAndCertificate) {
    let wanted = CertificateDer::from_pem_slice(certified.certificate.as_bytes()).unwrap();
    until("the certificate is presented", async || Ok((shown(scaler, authority).await? == wanted).then_some(())))
        .await
        .unwrap();
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_text_scaler_answers_only_plain_text_clients() {
    let (_system, scaler, _) = running().await;
    assert!(is_answered(&scaler, None).await);
    assert!(!is_answered(&scaler, Some(Authority::new().client(None))).await);
    assert!(is_answered(&scaler, None).await);
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn a_scaler_with_tls_answers_clients_that_trust_its_authority_and_ignores_idle_connections() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mount = Mount::new(&authority.sign("localhost"), "");
    let system = System::new(&mount.yaml(false)).unwrap();
    let scaler = system.scaler().await.unwrap();
    // Connections on which the client sends nothing.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(&scaler.address).await.unwrap());
    }
    assert!(is_answered(&scaler, Some(authority.client(None))).await);
    assert!(!is_answered(&scaler, Some(other.client(None))).await);
    assert!(!is_answered(&scaler, Some(authority.client(None).domain_name("elsewhere"))).await);
    assert!(!is_answered(&scaler, None).await);
    assert!(is_answered(&scaler, Some(authority.client(None))).await);
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn a_scaler_with_mutual_tls_answers_clients_with_a_certificate_of_the_client_authority() {
    let (authority, clients, other) = (Authority::new(), Authority::new(), Authority::new());
    let mut mount = Mount::new(&authority.sign("localhost"), &clients.0.pem());
    let system = System::new(&mount.yaml(true)).unwrap();
    let scaler = system.scaler().await.unwrap();
    let trusted = clients.sign("keda-operator");
    assert!(is_answered(&scaler, Some(authority.client(Some(&trusted)))).await);
    assert!(!is_answered(&scaler, Some(authority.client(None))).await);
    assert!(!is_answered(&scaler, Some(authority.client(Some(&other.sign("keda-operator"))))).await);
    assert!(!is_answered(&scaler, Some(authority.client(Some(&authority.sign("keda-operator"))))).await);
    assert!(!is_answered(&scaler, None).await);

    // The client authority is replaced too. Certificates of the old one are no longer accepted.
    mount.renew(&authority.sign("localhost"), &other.0.pem());
    scaler.process.prints("the renewed certificate is loaded").await.unwrap();
    assert!(!is_answered(&scaler, Some(authority.client(Some(&trusted)))).await);
    assert!(is_answered(&scaler, Some(authority.client(Some(&other.sign("keda-operator"))))).await);
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_presented_to_new_connections_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let (first, second, third) =
        (authority.sign("localhost"), authority.sign("localhost"), authority.sign("localhost"));
    let mut mount = Mount::new(&first, "");
    let system = System::new(&mount.yaml(false)).unwrap();
    let scaler = system.scaler().await.unwrap();
    let backend = system.backend().await.unwrap();
    until_shown(&scaler, &authority, &first).await;
    let mut keda = client(&scaler, Some(authority.client(None))).await.unwrap();
    let mut pushes = keda.pushes(&object("echo")).await.unwrap();
    assert!(!next(&mut pushes).await);

    mount.renew(&second, "");
    until_shown(&scaler, &authority, &second).await;

    // A key of another certificate: the scaler logs an error once and continues with the old pair.
    mount.renew(&KeyAndCertificate { certificate: third.certificate.clone(), key: first.key.clone() }, "");
    let line = scaler.process.prints("the previous one stays").await.unwrap();
    let key = mount.path("tls.key");
    assert!(line.contains("ERROR") && line.contains(&format!("scaler.tls.key: {key:?} does not match")), "{line}");
    // A pool without workers gets a repeated push after 2 s. In that time the files are checked 40 times.
    publish(&backend, "other", 1).await;
    let mut clock = keda.pushes(&object("other")).await.unwrap();
    while !next(&mut clock).await {}
    assert!(next(&mut clock).await);
    until_shown(&scaler, &authority, &second).await;

    mount.renew(&third, "");
    until_shown(&scaler, &authority, &third).await;
    let lines = scaler.process.output();
    assert_eq!(lines.iter().filter(|line| line.contains("the previous one stays")).count(), 1, "{lines:?}");

    // The stream that was opened with the first certificate still works.
    assert!(is_silent(&mut pushes));
    publish(&backend, "echo", 1).await;
    assert!(next(&mut pushes).await);
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn unusable_tls_files_are_named_at_the_start() {
    let authority = Authority::new();
    let mut mount = Mount::new(&authority.sign("localhost"), "not a certificate");
    let ended = async |mount: &Mount| {
        let system = System::new(&mount.yaml(true)).unwrap();
        let (status, output) = system.start("scaler", &[]).unwrap().ended().await.unwrap();
        assert!(!status.success() && !output.contains("grpc://"), "{output}");
        output
    };
    let output = ended(&mount).await;
    let path = mount.path("ca.crt");
    assert!(output.contains(&format!("scaler.tls.client_ca: {path:?} holds no certificate in PEM")), "{output}");

    let (one, other) = (authority.sign("localhost"), authority.sign("localhost"));
    mount.renew(&KeyAndCertificate { certificate: one.certificate, key: other.key.clone() }, &authority.0.pem());
    let output = ended(&mount).await;
    let path = mount.path("tls.key");
    assert!(output.contains(&format!("scaler.tls.key: {path:?} does not match the certificate")), "{output}");
    let secret = other.key.lines().nth(1).unwrap();
    assert!(!output.contains(secret), "{output}");

    // `up` calls its own scaler in plain text.
    let system = System::new(&mount.yaml(true)).unwrap();
    let (status, output) = system.start("up", &[]).unwrap().ended().await.unwrap();
    assert!(!status.success() && output.contains("scaler.tls: is for `millrace scaler`"), "{output}");

    std::fs::remove_file(mount.path("tls.key")).unwrap();
    let output = ended(&mount).await;
    assert!(output.contains(&format!("scaler.tls.key: {path:?} cannot be read: No such file")), "{output}");
}
