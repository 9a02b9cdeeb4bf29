//! The server side of TLS: the certificate of a process, and the authorities of its clients.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics::{Unit, describe_gauge, gauge};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{Faults, Period};

/// Gauge, by setting: the end of the validity of the certificate, in seconds since 1970.
const CERTIFICATE_EXPIRY: &str = "millrace_tls_certificate_expiry_timestamp_seconds";

/// The files for TLS, in PEM. Renewed files are loaded while the process runs. Open connections stay open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate of the server, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The certificate authorities of clients. If given, a client must present a certificate of one of them (mutual
    /// TLS).
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// The interval at which the files are checked for changes.
    #[serde(default = "reload_interval")]
    pub reload_interval: Period,
}

fn reload_interval() -> Period {
    Period::seconds(10)
}

impl TlsSettings {
    /// Adds the faults of these settings, which are the value of `key`. The files are not read here, because other
    /// services have the same configuration without the files.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        if self.reload_interval.is_zero() {
            faults.refuse(format_args!("{key}.reload_interval"), self.reload_interval, "is not more than 0s");
        }
    }

    /// Reads the files and returns all their faults, so that they are reported before a socket is bound. `key` is the key
    /// of these settings.
    pub async fn verify(&self, key: &'static str) -> Result<(), Faults> {
        let source = Source { key, settings: self.clone(), protocol: Protocol::Http };
        Files::read(&source).await?.config(&source).map(drop)
    }
}

/// What the server speaks, which the handshake agrees on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 or HTTP/1.1, as the client prefers.
    Http,
    /// HTTP/2 alone, as for gRPC.
    Http2,
}

impl Protocol {
    fn names(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
        }
    }
}

/// The files, with the key of their settings for faults.
struct Source {
    key: &'static str,
    settings: TlsSettings,
    protocol: Protocol,
}

/// The server side of TLS, from the files. When it is dropped, the files are not checked any more.
pub struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
    _reloading: AbortOnDropHandle<()>,
}

impl Tls {
    /// Reads the files of the settings at `key`. An error holds all their faults.
    pub async fn open(key: &'static str, settings: TlsSettings, protocol: Protocol) -> Result<Self, Faults> {
        describe_gauge!(
            CERTIFICATE_EXPIRY,
            Unit::Seconds,
            "end of the validity of a certificate, as a Unix time, by setting"
        );
        let source = Source { key, settings, protocol };
        let files = Files::read(&source).await?;
        let (sender, current) = watch::channel(files.config(&source)?);
        files.record_expiry(key);
        let reloading = tokio::spawn(reload_periodically(source, files, sender));
        Ok(Self { current, _reloading: AbortOnDropHandle::new(reloading) })
    }

    /// Performs the handshake of a connection with the current certificate.
    pub fn handshake(&self, socket: TcpStream) -> impl Future<Output = io::Result<TlsStream<TcpStream>>> + use<> {
        TlsAcceptor::from(Arc::clone(&self.current.borrow())).accept(socket)
    }
}

/// Compares the contents of the files, not their times: Kubernetes renews a mounted secret by replacing a symbolic
/// link.
async fn reload_periodically(source: Source, files: Files, sender: watch::Sender<Arc<ServerConfig>>) {
    let mut ticks = interval(source.settings.reload_interval.get());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The contents that were loaded or rejected last, and new contents that were invalid at the last check.
    let mut processed = Ok(files);
    let mut suspicious = None;
    loop {
        ticks.tick().await;
        let found = Files::read(&source).await;
        if found == processed {
            suspicious = None;
            continue;
        }
        match found.as_ref().map_err(Clone::clone).and_then(|files| files.config(&source)) {
            Ok(config) => {
                sender.send_replace(config);
                found.iter().for_each(|files| files.record_expiry(source.key));
                tracing::info!(certificate = %source.settings.certificate.display(), "the renewed certificate is loaded");
                (processed, suspicious) = (found, None);
            }
            // Certificate and key are written one after the other, so only contents that stay invalid are an error.
            Err(faults) if suspicious.as_ref() == Some(&found) => {
                tracing::error!(%faults, "the renewed certificate is invalid: the previous one stays in use");
                (processed, suspicious) = (found, None);
            }
            Err(_) => suspicious = Some(found),
        }
    }
}

/// The contents of the files.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    async fn read(source: &Source) -> Result<Self, Faults> {
        let (settings, mut faults) = (&source.settings, FileFaults::of(source));
        let certificate = read("certificate", &settings.certificate, &mut faults).await;
        let key = read("key", &settings.key, &mut faults).await;
        let client_ca = match &settings.client_ca {
            Some(path) => Some(read("client_ca", path, &mut faults).await),
            None => None,
        };
        faults.found.none_or(Self { certificate, key, client_ca })
    }

    /// The checked configuration. Every renewal makes a new one. Otherwise a client of a removed authority could resume
    /// its session.
    fn config(&self, source: &Source) -> Result<Arc<ServerConfig>, Faults> {
        let provider = Arc::new(ring::default_provider());
        let (settings, mut faults) = (&source.settings, FileFaults::of(source));
        let own = self.certified_key(settings, &provider, &mut faults);
        let clients = match (&self.client_ca, &settings.client_ca) {
            (Some(pem), Some(path)) => client_verifier(pem, path, &provider, &mut faults),
            _ => Some(WebPkiClientVerifier::no_client_auth()),
        };
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| faults.refuse("certificate", &settings.certificate, error));
        let (Ok(builder), Some(own), Some(clients)) = (builder, own, clients) else {
            return Err(faults.found);
        };
        let resolver = Arc::new(SingleCertAndKey::from(own));
        let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(resolver);
        config.alpn_protocols = source.protocol.names();
        Ok(Arc::new(config))
    }

    fn record_expiry(&self, key: &'static str) {
        if let Some(expiry) = self.expiry() {
            gauge!(CERTIFICATE_EXPIRY, "setting" => key).set(expiry as f64);
        }
    }

    /// The end of the validity of the own certificate, in seconds since 1970.
    fn expiry(&self) -> Option<i64> {
        let own = CertificateDer::pem_slice_iter(&self.certificate).next()?.ok()?;
        let (_, own) = x509_parser::parse_x509_certificate(&own).ok()?;
        Some(own.validity().not_after.timestamp())
    }

    /// The certificate and its key, which must match.
    fn certified_key(
        &self,
        settings: &TlsSettings,
        provider: &CryptoProvider,
        faults: &mut FileFaults,
    ) -> Option<CertifiedKey> {
        let chain = certificates("certificate", &self.certificate, &settings.certificate, faults);
        // The message has no details, because they might contain parts of the key.
        let key = PrivateKeyDer::from_pem_slice(&self.key).ok();
        let key = key.and_then(|key| provider.key_provider.load_private_key(key).ok());
        if key.is_none() {
            faults.refuse("key", &settings.key, "holds no usable private key in PEM");
        }
        let own = CertifiedKey::new(chain?, key?);
        match own.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => return Some(own),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let rule = format!("does not match the certificate in {:?}", settings.certificate);
                faults.refuse("key", &settings.key, rule);
            }
            Err(error) => faults.refuse("certificate", &settings.certificate, format_args!("is invalid: {error}")),
        }
        None
    }
}

/// Verifies the certificates of clients.
fn client_verifier(
    pem: &[u8],
    path: &Path,
    provider: &Arc<CryptoProvider>,
    faults: &mut FileFaults,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", pem, path, faults)? {
        if let Err(error) = roots.add(certificate) {
            faults.refuse("client_ca", path, format_args!("holds an invalid certificate authority: {error}"));
            return None;
        }
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map_err(|error| faults.refuse("client_ca", path, format_args!("is invalid: {error}"))).ok()
}

fn certificates(key: &str, pem: &[u8], path: &Path, faults: &mut FileFaults) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => faults.refuse(key, path, "holds no certificate in PEM"),
        Err(error) => faults.refuse(key, path, format_args!("is not PEM: {error}")),
    }
    None
}

/// The contents of a file. Empty, with a fault, if it cannot be read.
async fn read(key: &str, path: &Path, faults: &mut FileFaults) -> Vec<u8> {
    tokio::fs::read(path).await.unwrap_or_else(|error| {
        faults.refuse(key, path, format_args!("cannot be read: {error}"));
        Vec::new()
    })
}

/// The faults of the files, with the key of each file.
struct FileFaults {
    key: &'static str,
    found: Faults,
}

impl FileFaults {
    fn of(source: &Source) -> Self {
        Self { key: source.key, found: Faults::default() }
    }

    fn refuse(&mut self, key: &str, path: &Path, rule: impl fmt::Display) {
        self.found.refuse(format_args!("{}.{key}", self.key), format_args!("{path:?}"), rule);
    }
}

#[cfg(test)]
mod tests;
