//! TLS to servers with an `https://` URL: the authorities that may issue their certificates, and the certificate of this
//! client.

use std::sync::Arc;

use reqwest::ClientBuilder;
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};

use crate::Error;

/// How servers with an `https://` URL are verified, and how this client identifies itself. The default trusts the
/// certificate authorities of the system, and has no certificate.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// `None`: those of the system.
    authorities: Option<Arc<RootCertStore>>,
    own: Option<Arc<SingleCertAndKey>>,
}

/// Why a text is no certificate or no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The text has no certificate.
    #[error("holds no certificate in PEM")]
    NoCertificate,
    /// The text has a certificate that cannot be used.
    #[error("holds an invalid certificate: {0}")]
    Certificate(String),
    /// The text has no private key. There are no details, because they might contain parts of a key.
    #[error("holds no usable private key in PEM")]
    NoKey,
    /// The key is that of another certificate.
    #[error("does not match the certificate")]
    OtherKey,
}

impl Tls {
    /// Trusts only the certificate authorities in `pem`, and not those of the system.
    pub fn trusting(self, pem: &[u8]) -> Result<Self, PemError> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(pem)? {
            authorities.add(certificate).map_err(|error| PemError::Certificate(error.to_string()))?;
        }
        Ok(Self { authorities: Some(Arc::new(authorities)), ..self })
    }

    /// Presents a certificate to servers that ask for one. Intermediate certificates follow it in `certificate`.
    pub fn presenting(self, certificate: &[u8], key: &[u8]) -> Result<Self, PemError> {
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| PemError::NoKey)?;
        let key = ring::default_provider().key_provider.load_private_key(key).map_err(|_| PemError::NoKey)?;
        let own = CertifiedKey::new(chain, key);
        match own.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(PemError::OtherKey),
            Err(error) => return Err(PemError::Certificate(error.to_string())),
        }
        Ok(Self { own: Some(Arc::new(SingleCertAndKey::from(own))), ..self })
    }

    /// The builder of an HTTP client for `https://` URLs. Reads the authorities of the system, unless others are trusted.
    pub(crate) fn http(&self) -> Result<ClientBuilder, Error> {
        let authorities = self.authorities.clone().unwrap_or_else(|| Arc::new(of_system()));
        builder(authorities, self.own.clone())
    }
}

/// The builder of an HTTP client for `http://` URLs alone. It reads no certificates of the system. Other clients do, and
/// some systems have none.
pub fn plain_http() -> Result<ClientBuilder, Error> {
    builder(Arc::new(RootCertStore::empty()), None)
}

fn builder(authorities: Arc<RootCertStore>, own: Option<Arc<SingleCertAndKey>>) -> Result<ClientBuilder, Error> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(Error::NoTls)?.with_root_certificates(authorities);
    let mut config = match own {
        Some(own) => config.with_client_cert_resolver(own as Arc<dyn ResolvesClientCert>),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(reqwest::Client::builder().tls_backend_preconfigured(config))
}

/// A certificate that cannot be read is left out, as other programs do. If none is left, every server is refused.
fn of_system() -> RootCertStore {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    authorities
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| PemError::Certificate(error.to_string()))?;
    if found.is_empty() { Err(PemError::NoCertificate) } else { Ok(found) }
}
