//! Who can speak to a scaler with TLS, and how its certificate is renewed.

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

/// Who cannot be spoken to finds out at once; far more than that takes.
const FAILS_WITHIN: Duration = Duration::from_secs(20);

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Certified {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> Certified {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Certified { certificate, key: key.serialize_pem() }
    }

    /// A client that believes this authority's servers, and shows a certificate if it has one.
    fn client(&self, own: Option<&Certified>) -> ClientTlsConfig {
        let config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.0.pem())).domain_name("localhost");
        match own {
            Some(own) => config.identity(Identity::from_pem(&own.certificate, &own.key)),
            None => config,
        }
    }
}

/// A secret as Kubernetes mounts it: names that lead through `..data` to the folder of one version.
struct Mount {
    folder: TempDir,
    versions: usize,
}

impl Mount {
    fn new(certified: &Certified, client_ca: &str) -> Self {
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

    /// Puts all files of a new version in place in one step.
    fn renew(&mut self, certified: &Certified, client_ca: &str) {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        std::fs::create_dir(self.path(&version)).unwrap();
        for (name, text) in [("tls.crt", &*certified.certificate), ("tls.key", &certified.key), ("ca.crt", client_ca)] {
            std::fs::write(self.path(&version).join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(&version, self.path("..data_new")).unwrap();
        std::fs::rename(self.path("..data_new"), self.path("..data")).unwrap();
    }

    /// A configuration with these files; with `mutual`, clients must show a certificate.
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

/// Whether a client that connects in this way is answered.
async fn is_answered(scaler: &Scaler, tls: Option<ClientTlsConfig>) -> bool {
    let asking = async { anyhow::Ok(client(scaler, tls).await?.spec(&object("echo")).await?) };
    timeout(FAILS_WITHIN, asking).await.expect("it hangs").is_ok()
}

/// The certificate that a new connection is shown.
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

/// Waits until new connections are shown this certificate.
async fn until_shown(scaler: &Scaler, authority: &Authority, certified: &Certified) {
    let wanted = CertificateDer::from_pem_slice(certified.certificate.as_bytes()).unwrap();
    until("the certificate is shown", async || Ok((shown(scaler, authority).await? == wanted).then_some(())))
        .await
        .unwrap();
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_scaler_answers_plain_clients_alone() {
    let (_system, scaler, _) = running().await;
    assert!(is_answered(&scaler, None).await);
    assert!(!is_answered(&scaler, Some(Authority::new().client(None))).await);
    assert!(is_answered(&scaler, None).await);
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn a_scaler_with_tls_answers_who_believes_its_authority_and_is_held_up_by_nobody() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mount = Mount::new(&authority.sign("localhost"), "");
    let system = System::new(&mount.yaml(false)).unwrap();
    let scaler = system.scaler().await.unwrap();
    // Connections that never say a word.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(&scaler.address).await.unwrap());
    }
    assert!(is_answered(&scaler, Some(authority.client(None))).await);
    assert!(!is_answered(&scaler, Some(stranger.client(None))).await);
    assert!(!is_answered(&scaler, Some(authority.client(None).domain_name("elsewhere"))).await);
    assert!(!is_answered(&scaler, None).await);
    assert!(is_answered(&scaler, Some(authority.client(None))).await);
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn a_scaler_with_mutual_tls_answers_who_shows_a_certificate_of_its_clients_authority() {
    let (authority, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let mut mount = Mount::new(&authority.sign("localhost"), &clients.0.pem());
    let system = System::new(&mount.yaml(true)).unwrap();
    let scaler = system.scaler().await.unwrap();
    let known = clients.sign("keda-operator");
    assert!(is_answered(&scaler, Some(authority.client(Some(&known)))).await);
    assert!(!is_answered(&scaler, Some(authority.client(None))).await);
    assert!(!is_answered(&scaler, Some(authority.client(Some(&stranger.sign("keda-operator"))))).await);
    assert!(!is_answered(&scaler, Some(authority.client(Some(&authority.sign("keda-operator"))))).await);
    assert!(!is_answered(&scaler, None).await);

    // The authority of clients is renewed as well: the former one's are believed no more.
    mount.renew(&authority.sign("localhost"), &stranger.0.pem());
    scaler.process.says("the certificate is renewed").await.unwrap();
    assert!(!is_answered(&scaler, Some(authority.client(Some(&known)))).await);
    assert!(is_answered(&scaler, Some(authority.client(Some(&stranger.sign("keda-operator"))))).await);
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_new_connections_and_a_broken_one_is_not() {
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

    // A key that is another's: said once, and the former pair stays.
    mount.renew(&Certified { certificate: third.certificate.clone(), key: first.key.clone() }, "");
    let said = scaler.process.says("the former one stays").await.unwrap();
    let key = mount.path("tls.key");
    assert!(said.contains("ERROR") && said.contains(&format!("scaler.tls.key: {key:?} does not fit")), "{said}");
    // What is repeated to a pool without workers comes after 2 s, which is 40 looks at the files.
    publish(&backend, "other", 1).await;
    let mut clock = keda.pushes(&object("other")).await.unwrap();
    while !next(&mut clock).await {}
    assert!(next(&mut clock).await);
    until_shown(&scaler, &authority, &second).await;

    mount.renew(&third, "");
    until_shown(&scaler, &authority, &third).await;
    let said = scaler.process.output();
    assert_eq!(said.iter().filter(|line| line.contains("the former one stays")).count(), 1, "{said:?}");

    // The stream of the first certificate is as it was.
    assert!(is_silent(&mut pushes));
    publish(&backend, "echo", 1).await;
    assert!(next(&mut pushes).await);
}

/// C18.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_of_no_use_are_named_at_the_start() {
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
    mount.renew(&Certified { certificate: one.certificate, key: other.key.clone() }, &authority.0.pem());
    let output = ended(&mount).await;
    let path = mount.path("tls.key");
    assert!(output.contains(&format!("scaler.tls.key: {path:?} does not match the certificate")), "{output}");
    let secret = other.key.lines().nth(1).unwrap();
    assert!(!output.contains(secret), "{output}");

    // `up` asks its own scaler in plain text.
    let system = System::new(&mount.yaml(true)).unwrap();
    let (status, output) = system.start("up", &[]).unwrap().ended().await.unwrap();
    assert!(!status.success() && output.contains("scaler.tls: is for `millrace scaler`"), "{output}");

    std::fs::remove_file(mount.path("tls.key")).unwrap();
    let output = ended(&mount).await;
    assert!(output.contains(&format!("scaler.tls.key: {path:?} cannot be read: No such file")), "{output}");
}
