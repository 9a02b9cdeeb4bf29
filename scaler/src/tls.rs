//! The scaler's certificate, and the clients it believes.

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

/// Where these settings stand: the key by which a fault in a file is told.
const KEY: &str = "scaler.tls";

/// The files for TLS, in PEM. Renewed files are picked up while the scaler runs; open connections stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The scaler's certificate, the authorities between it and its root after it.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities of clients. Where given, a client must show a certificate of one of them (mutual TLS).
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// How often the files are looked at.
    #[serde(default = "reload_interval")]
    pub reload_interval: Period,
}

fn reload_interval() -> Period {
    Period::seconds(10)
}

impl TlsSettings {
    /// Adds what is wrong with these settings, which stand under `key`. The files are read by the scaler alone: other
    /// services have the same configuration and need not have them.
    pub(crate) fn check(&self, key: &str, faults: &mut Faults) {
        if self.reload_interval.is_zero() {
            faults.refuse(format_args!("{key}.reload_interval"), self.reload_interval, "is not more than 0s");
        }
    }

    /// Reads the files, or says everything that is wrong with them: for who wants to know before a socket is bound.
    pub async fn verify(&self) -> Result<(), Faults> {
        Files::read(self).await?.config(self).map(drop)
    }
}

/// The server's side of TLS, as the files have it. Dropped, it looks at them no more.
pub(crate) struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
    _renewing: AbortOnDropHandle<()>,
}

impl Tls {
    /// Reads the files, or says everything that is wrong with them.
    pub(crate) async fn open(settings: TlsSettings) -> Result<Self, Faults> {
        let files = Files::read(&settings).await?;
        let (sender, current) = watch::channel(files.config(&settings)?);
        let renewing = tokio::spawn(renew_for_ever(settings, files, sender));
        Ok(Self { current, _renewing: AbortOnDropHandle::new(renewing) })
    }

    /// Makes a connection secure, by the certificate of this moment.
    pub(crate) fn handshake(
        &self,
        socket: TcpStream,
    ) -> impl Future<Output = io::Result<TlsStream<TcpStream>>> + use<> {
        TlsAcceptor::from(Arc::clone(&self.current.borrow())).accept(socket)
    }
}

/// Looks at the files' contents rather than at their times: Kubernetes renews a mounted secret by turning a link.
async fn renew_for_ever(settings: TlsSettings, files: Files, sender: watch::Sender<Arc<ServerConfig>>) {
    let mut looks = interval(settings.reload_interval.get());
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What has been taken or complained of, and what looked wrong at the last look.
    let mut known = Ok(files);
    let mut doubtful = None;
    loop {
        looks.tick().await;
        let found = Files::read(&settings).await;
        if found == known {
            doubtful = None;
            continue;
        }
        match found.as_ref().map_err(Clone::clone).and_then(|files| files.config(&settings)) {
            Ok(config) => {
                sender.send_replace(config);
                tracing::info!(certificate = %settings.certificate.display(), "the certificate is renewed");
                (known, doubtful) = (found, None);
            }
            // Certificate and key are written one after the other: only what stays so is at fault.
            Err(faults) if doubtful.as_ref() == Some(&found) => {
                tracing::error!(%faults, "the renewed certificate is of no use: the former one stays");
                (known, doubtful) = (found, None);
            }
            Err(_) => doubtful = Some(found),
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

    /// All that the files say, checked. A whole configuration, so that no session of a client who is believed no more
    /// is resumed.
    fn config(&self, settings: &TlsSettings) -> Result<Arc<ServerConfig>, Faults> {
        let provider = Arc::new(ring::default_provider());
        let mut faults = Faults::default();
        let own = self.own(settings, &provider, &mut faults);
        let clients = match (&self.client_ca, &settings.client_ca) {
            (Some(pem), Some(path)) => clients(pem, path, &provider, &mut faults),
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

    /// The scaler's certificate and key, which must belong together.
    fn own(&self, settings: &TlsSettings, provider: &CryptoProvider, faults: &mut Faults) -> Option<CertifiedKey> {
        let chain = certificates("certificate", &self.certificate, &settings.certificate, faults);
        // What is wrong with a key is not told in more words: they might be part of it.
        let key = PrivateKeyDer::from_pem_slice(&self.key).ok();
        let key = key.and_then(|key| provider.key_provider.load_private_key(key).ok());
        if key.is_none() {
            refuse("key", &settings.key, "holds no private key in PEM that can be used", faults);
        }
        let own = CertifiedKey::new(chain?, key?);
        match own.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => return Some(own),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let rule = format!("does not fit the certificate in {:?}", settings.certificate);
                refuse("key", &settings.key, rule, faults);
            }
            Err(error) => refuse("certificate", &settings.certificate, format_args!("is of no use: {error}"), faults),
        }
        None
    }
}

/// Who tells whether a client is to be believed.
fn clients(
    pem: &[u8],
    path: &Path,
    provider: &Arc<CryptoProvider>,
    faults: &mut Faults,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", pem, path, faults)? {
        if let Err(error) = roots.add(certificate) {
            refuse("client_ca", path, format_args!("holds what is no authority: {error}"), faults);
            return None;
        }
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map_err(|error| refuse("client_ca", path, format_args!("is of no use: {error}"), faults)).ok()
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

/// The file's bytes; none, and a fault, where it cannot be read.
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
