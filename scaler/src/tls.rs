//! The scaler's certificate, and the authorities of its clients.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{Faults, Period};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

/// The key of these settings, for faults in the files.
const KEY: &str = "scaler.tls";

/// The files for TLS, in PEM. The scaler loads renewed files while it runs. Open connections stay open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The scaler's certificate, followed by its intermediate certificates.
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
    pub(crate) fn check(&self, key: &str, faults: &mut Faults) {
        if self.reload_interval.is_zero() {
            faults.refuse(format_args!("{key}.reload_interval"), self.reload_interval, "is not more than 0s");
        }
    }

    /// Reads the files and returns all their faults, so that they are reported before a socket is bound.
    pub async fn verify(&self) -> Result<(), Faults> {
        Files::read(self).await?.config(self).map(drop)
    }
}

/// The server side of TLS, from the files. When it is dropped, the files are not checked any more.
pub(crate) struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
    _reloading: AbortOnDropHandle<()>,
}

impl Tls {
    /// Reads the files. An error holds all their faults.
    pub(crate) async fn open(settings: TlsSettings) -> Result<Self, Faults> {
        let files = Files::read(&settings).await?;
        let (sender, current) = watch::channel(files.config(&settings)?);
        let reloading = tokio::spawn(reload_periodically(settings, files, sender));
        Ok(Self { current, _reloading: AbortOnDropHandle::new(reloading) })
    }

    /// Performs the handshake of a connection with the current certificate.
    pub(crate) fn handshake(
        &self,
        socket: TcpStream,
    ) -> impl Future<Output = io::Result<TlsStream<TcpStream>>> + use<> {
        TlsAcceptor::from(Arc::clone(&self.current.borrow())).accept(socket)
    }
}

/// Compares the contents of the files, not their times: Kubernetes renews a mounted secret by replacing a symbolic
/// link.
async fn reload_periodically(settings: TlsSettings, files: Files, sender: watch::Sender<Arc<ServerConfig>>) {
    let mut ticks = interval(settings.reload_interval.get());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The contents that were loaded or rejected last, and new contents that were invalid at the last check.
    let mut processed = Ok(files);
    let mut suspicious = None;
    loop {
        ticks.tick().await;
        let found = Files::read(&settings).await;
        if found == processed {
            suspicious = None;
            continue;
        }
        match found.as_ref().map_err(Clone::clone).and_then(|files| files.config(&settings)) {
            Ok(config) => {
                sender.send_replace(config);
                tracing::info!(certificate = %settings.certificate.display(), "the renewed certificate is loaded");
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
    async fn read(settings: &TlsSettings) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let certificate = read("certificate", &settings.certificate, &mut faults).await;
        let key = read("key", &settings.key, &mut faults).await;
        let client_ca = match &settings.client_ca {
            Some(path) => Some(read("client_ca", path, &mut faults).await),
            None => None,
        };
        faults.none_or(Self { certificate, key, client_ca })
    }

    /// The checked configuration. Every renewal makes a new one. Otherwise a client of a removed authority could resume
    /// its session.
    fn config(&self, settings: &TlsSettings) -> Result<Arc<ServerConfig>, Faults> {
        let provider = Arc::new(ring::default_provider());
        let mut faults = Faults::default();
        let own = self.certified_key(settings, &provider, &mut faults);
        let clients = match (&self.client_ca, &settings.client_ca) {
            (Some(pem), Some(path)) => client_verifier(pem, path, &provider, &mut faults),
            _ => Some(WebPkiClientVerifier::no_client_auth()),
        };
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| refuse("certificate", &settings.certificate, error, &mut faults));
        let (Ok(builder), Some(own), Some(clients)) = (builder, own, clients) else { return Err(faults) };
        let resolver = Arc::new(SingleCertAndKey::from(own));
        let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// The scaler's certificate and key, which must match.
    fn certified_key(
        &self,
        settings: &TlsSettings,
        provider: &CryptoProvider,
        faults: &mut Faults,
    ) -> Option<CertifiedKey> {
        let chain = certificates("certificate", &self.certificate, &settings.certificate, faults);
        // The message has no details, because they might contain parts of the key.
        let key = PrivateKeyDer::from_pem_slice(&self.key).ok();
        let key = key.and_then(|key| provider.key_provider.load_private_key(key).ok());
        if key.is_none() {
            refuse("key", &settings.key, "holds no usable private key in PEM", faults);
        }
        let own = CertifiedKey::new(chain?, key?);
        match own.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => return Some(own),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let rule = format!("does not match the certificate in {:?}", settings.certificate);
                refuse("key", &settings.key, rule, faults);
            }
            Err(error) => refuse("certificate", &settings.certificate, format_args!("is invalid: {error}"), faults),
        }
        None
    }
}

/// Verifies the certificates of clients.
fn client_verifier(
    pem: &[u8],
    path: &Path,
    provider: &Arc<CryptoProvider>,
    faults: &mut Faults,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", pem, path, faults)? {
        if let Err(error) = roots.add(certificate) {
            refuse("client_ca", path, format_args!("holds an invalid certificate authority: {error}"), faults);
            return None;
        }
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map_err(|error| refuse("client_ca", path, format_args!("is invalid: {error}"), faults)).ok()
}

fn certificates(key: &str, pem: &[u8], path: &Path, faults: &mut Faults) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => refuse(key, path, "holds no certificate in PEM", faults),
        Err(error) => refuse(key, path, format_args!("is not PEM: {error}"), faults),
    }
    None
}

/// The contents of a file. Empty, with a fault, if it cannot be read.
async fn read(key: &str, path: &Path, faults: &mut Faults) -> Vec<u8> {
    tokio::fs::read(path).await.unwrap_or_else(|error| {
        refuse(key, path, format_args!("cannot be read: {error}"), faults);
        Vec::new()
    })
}

fn refuse(key: &str, path: &Path, rule: impl fmt::Display, faults: &mut Faults) {
    faults.refuse(format_args!("{KEY}.{key}"), format_args!("{path:?}"), rule);
}

#[cfg(test)]
mod tests;
