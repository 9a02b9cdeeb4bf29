//! Faults of TLS, and of URLs with the wrong scheme.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// Why no connection with TLS can be made, or why one without TLS is of no use. A repetition would fail too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The server's certificate is from another authority than the trusted ones.
    #[error("no trusted authority has issued its certificate")]
    UnknownIssuer,
    /// The server's certificate has another fault.
    #[error("its certificate is not valid: {0}")]
    Certificate(String),
    /// The server demands a certificate, or another one.
    #[error("it demands a client certificate: {0}")]
    ClientCertificate(String),
    /// The URL has `https://`, and the server answers without TLS.
    #[error("it does not speak TLS; the URL of a server without TLS starts with http://")]
    PlainText,
    /// The URL has `http://`, and the answer is not HTTP.
    #[error("its answer is not HTTP; the URL of a server with TLS starts with https://")]
    NotHttp,
}

impl TlsFault {
    /// The fault that made a request fail, if there is one among the causes.
    pub(crate) fn of(error: &reqwest::Error) -> Option<Self> {
        let is_plain = error.url().is_some_and(|url| url.scheme() == "http");
        let mut next = error.source();
        while let Some(cause) = next {
            if let Some(fault) = cause.downcast_ref::<rustls::Error>().and_then(Self::of_rustls) {
                return Some(fault);
            }
            if is_plain && cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return Some(Self::NotHttp);
            }
            // The source of an I/O error is not the error within it, but the source of that one.
            next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(within) => Some(within),
                None => cause.source(),
            };
        }
        None
    }

    fn of_rustls(error: &rustls::Error) -> Option<Self> {
        use AlertDescription as Alert;
        match error {
            // A bad signature: the authority has the name of a trusted one, and another key.
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Some(Self::UnknownIssuer)
            }
            rustls::Error::InvalidCertificate(fault) => Some(Self::Certificate(fault.to_string())),
            rustls::Error::InvalidMessage(_) => Some(Self::PlainText),
            rustls::Error::AlertReceived(
                alert @ (Alert::CertificateRequired
                | Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied),
            ) => Some(Self::ClientCertificate(format!("{alert:?}"))),
            _ => None,
        }
    }
}
