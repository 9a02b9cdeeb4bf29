//! The start of `millrace scaler`.

use std::net::TcpListener;
use std::process::Command;

use tempfile::TempDir;

#[test]
fn unusable_tls_files_are_refused_before_anything_is_bound_or_printed() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    // The address is in use. A scaler that binds it before it reads the files would report that instead.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!(
        "blobs: {{folder: {blobs:?}}}\nbroker: 'embedded:{broker}'\npools: {{echo: {{model: echo}}}}\n\
         scaler: {{listen: '{listen}', tls: {{certificate: {certificate:?}, key: {key:?}}}}}\n",
        blobs = path("blobs"),
        broker = path("data").display(),
        listen = taken.local_addr().unwrap(),
        certificate = path("tls.crt"),
        key = path("tls.key"),
    );
    std::fs::write(path("millrace.yaml"), settings).unwrap();
    std::fs::write(path("tls.key"), "no key").unwrap();

    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let output = command.args(["scaler", "--admin", "127.0.0.1:0", "--config"]).arg(path("millrace.yaml")).output();
    let output = output.unwrap();
    let [printed, refused] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(!output.status.success());
    assert_eq!(printed, "");
    let expected = format!("scaler.tls.certificate: {:?} cannot be read: No such file", path("tls.crt"));
    assert!(refused.contains(&expected), "{refused}");
    assert!(!path("data").exists(), "the broker was opened");
}
