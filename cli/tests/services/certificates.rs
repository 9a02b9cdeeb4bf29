//! Certificates that a test makes.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

/// A new authority with this name. OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
pub(crate) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a new certificate for hosts with these names and its key, as `FILE.crt` and `FILE.key`.
pub(crate) fn certify(authority: &Authority, hosts: &[&str], folder: &Path, file: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(hosts.iter().copied().map(str::to_owned).collect::<Vec<_>>()).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap().pem();
    std::fs::write(folder.join(file).with_extension("crt"), certificate).unwrap();
    std::fs::write(folder.join(file).with_extension("key"), key.serialize_pem()).unwrap();
}
