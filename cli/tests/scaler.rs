//! `millrace scaler`, as it starts.

use std::net::TcpListener;
use std::process::Command;

use tempfile::TempDir;

#[test]
fn files_for_tls_that_are_of_no_use_are_refused_before_anything_is_bound_or_said() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Somebody else has the address: whoever binds before it reads the files says so.
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
    let [said, refused] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    assert!(!output.status.success());
    assert_eq!(said, "");
    let expected = format!("scaler.tls.certificate: {:?} cannot be read: No such file", path("tls.crt"));
    assert!(refused.contains(&expected), "{refused}");
    assert!(!path("data").exists(), "the broker is opened");
}
