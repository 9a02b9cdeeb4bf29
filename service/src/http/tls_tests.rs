//! TLS in front of HTTP, with a real client.

use std::net::SocketAddr;

use axum::http::Version;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::Period;
use crate::tls::{Protocol, TlsSettings};

const LONG: Duration = Duration::from_secs(60);

struct Authority(CertifiedIssuer<'static, KeyPair>);

type HttpsClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a new certificate for `localhost` and its key.
    fn certify(&self, settings: &TlsSettings) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        std::fs::write(&settings.certificate, params.signed_by(&key, &self.0).unwrap().pem()).unwrap();
        std::fs::write(&settings.key, key.serialize_pem()).unwrap();
    }

    /// A client that trusts this authority and offers HTTP/2 and HTTP/1.1, or HTTP/1.1 alone.
    fn client(&self, http2: bool) -> HttpsClient {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
        let connector = if http2 { builder.enable_http2().build() } else { builder.build() };
        Client::builder(TokioExecutor::new()).build(connector)
    }
}

struct Serving {
    _folder: TempDir,
    settings: TlsSettings,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(authority: &Authority, limits: HttpLimits) -> Serving {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let reload_interval = Period::millis(5);
    let settings = TlsSettings { certificate: path("tls.crt"), key: path("tls.key"), client_ca: None, reload_interval };
    authority.certify(&settings);
    let tls = Tls::open("gateway.tls", settings.clone(), Protocol::Http).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let router = Router::new().route("/", get(async || "ok"));
    let task = tokio::spawn(serve(listener, Some(tls), router, limits, stop.clone()));
    Serving { _folder: folder, settings, address, stop, task }
}

/// The version of the answer. The error is that of the connection.
async fn answer(client: &HttpsClient, serving: &Serving) -> Result<Version, hyper_util::client::legacy::Error> {
    let url = format!("https://localhost:{}/", serving.address.port());
    let response = timeout(LONG, client.get(url.parse().unwrap())).await.expect("no answer")?;
    let version = response.version();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    Ok(version)
}

#[tokio::test]
async fn a_client_chooses_http_2_or_http_1_over_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let serving = start(&authority, HttpLimits::default()).await;
    assert_eq!(answer(&authority.client(true), &serving).await.unwrap(), Version::HTTP_2);
    assert_eq!(answer(&authority.client(false), &serving).await.unwrap(), Version::HTTP_11);
    assert!(answer(&other.client(true), &serving).await.is_err());

    // Plain text gets no answer, and the connection is closed.
    let mut plain = TcpStream::connect(serving.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answered = Vec::new();
    let _ = timeout(LONG, plain.read_to_end(&mut answered)).await.expect("the connection stays open");
    assert!(!answered.starts_with(b"HTTP"), "{answered:?}");

    serving.stop.cancel();
    timeout(LONG, serving.task).await.expect("the server does not stop").unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_connections_and_an_invalid_one_is_not() {
    let (first, second) = (Authority::new(), Authority::new());
    let serving = start(&first, HttpLimits::default()).await;
    let open = first.client(true);
    answer(&open, &serving).await.unwrap();
    std::fs::write(&serving.settings.key, "cut off").unwrap();
    answer(&first.client(true), &serving).await.unwrap();
    second.certify(&serving.settings);
    let renewed = async { while answer(&second.client(true), &serving).await.is_err() {} };
    timeout(LONG, renewed).await.expect("the renewed certificate is not used");
    assert!(answer(&first.client(true), &serving).await.is_err());
    // The connection that was opened with the first certificate.
    answer(&open, &serving).await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_stalls_delays_no_client_and_no_stop() {
    let authority = Authority::new();
    let limits = HttpLimits { header_timeout: Duration::from_millis(200), ..HttpLimits::default() };
    let serving = start(&authority, limits).await;
    let mut silent = TcpStream::connect(serving.address).await.unwrap();
    answer(&authority.client(true), &serving).await.unwrap();
    timeout(LONG, silent.read_to_end(&mut Vec::new())).await.expect("the connection stays open").unwrap();

    let hour = Duration::from_secs(3600);
    let serving = start(&authority, HttpLimits { header_timeout: hour, ..HttpLimits::default() }).await;
    let _silent = TcpStream::connect(serving.address).await.unwrap();
    answer(&authority.client(true), &serving).await.unwrap();
    serving.stop.cancel();
    timeout(LONG, serving.task).await.expect("a stalled handshake holds the stop").unwrap();
}
