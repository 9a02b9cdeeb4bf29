//! Faults of the files are reported with key and file.

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// A folder with a certificate, its key, and settings that name them.
fn files() -> (TempDir, TlsSettings) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let settings = TlsSettings {
        certificate: path("tls.crt"),
        key: path("tls.key"),
        client_ca: Some(path("ca.crt")),
        reload_interval: Period::millis(5),
    };
    write(&settings);
    (folder, settings)
}

fn write(settings: &TlsSettings) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(&settings.certificate, certificate.pem()).unwrap();
    std::fs::write(&settings.key, key.serialize_pem()).unwrap();
    std::fs::write(settings.client_ca.as_ref().unwrap(), certificate.pem()).unwrap();
}

async fn open(settings: &TlsSettings) -> Result<Tls, Faults> {
    Tls::open("scaler.tls", settings.clone(), Protocol::Http2).await
}

async fn faults_of(settings: &TlsSettings) -> String {
    open(settings).await.err().expect("the files are accepted").to_string()
}

#[tokio::test]
async fn a_file_that_is_missing_or_not_pem_is_named_with_its_key() {
    let (_folder, settings) = files();
    assert!(open(&settings).await.is_ok());
    let (certificate, key) = (settings.certificate.clone(), settings.key.clone());
    let client_ca = settings.client_ca.clone().unwrap();
    std::fs::remove_file(&certificate).unwrap();
    std::fs::remove_file(&key).unwrap();
    let missing = |name: &str, path: &Path| {
        format!("scaler.tls.{name}: {path:?} cannot be read: No such file or directory (os error 2)")
    };
    assert_eq!(faults_of(&settings).await, [missing("certificate", &certificate), missing("key", &key)].join("\n"));

    for path in [&certificate, &key, &client_ca] {
        std::fs::write(path, "password").unwrap();
    }
    let expected = [
        format!("scaler.tls.certificate: {certificate:?} holds no certificate in PEM"),
        format!("scaler.tls.key: {key:?} holds no usable private key in PEM"),
        format!("scaler.tls.client_ca: {client_ca:?} holds no certificate in PEM"),
    ];
    assert_eq!(faults_of(&settings).await, expected.join("\n"));
}

#[tokio::test]
async fn a_key_that_does_not_match_its_certificate_is_named() {
    let (_folder, settings) = files();
    std::fs::write(&settings.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let (key, certificate) = (&settings.key, &settings.certificate);
    let expected = format!("scaler.tls.key: {key:?} does not match the certificate in {certificate:?}");
    assert_eq!(faults_of(&settings).await, expected);
}

#[tokio::test]
async fn renewed_files_are_loaded_and_invalid_ones_are_not() {
    let (_folder, settings) = files();
    let mut tls = open(&settings).await.unwrap();
    let first = Arc::clone(&tls.current.borrow_and_update());
    // The files are invalid from here to the next write, so a check in between must not load them.
    std::fs::write(&settings.key, "cut off").unwrap();
    write(&settings);
    tls.current.changed().await.unwrap();
    assert!(!Arc::ptr_eq(&first, &tls.current.borrow()));
}

#[tokio::test]
async fn the_end_of_the_own_certificate_is_read() {
    let (_folder, settings) = files();
    let source = Source { key: "scaler.tls", settings: settings.clone(), protocol: Protocol::Http2 };
    let key = KeyPair::generate().unwrap();
    let certificate = |year| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    // The chain follows the own certificate.
    std::fs::write(&settings.certificate, certificate(2040) + &certificate(2030)).unwrap();
    assert_eq!(Files::read(&source).await.unwrap().expiry(), Some(2_208_988_800));
}
