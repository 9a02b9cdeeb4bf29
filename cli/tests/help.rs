//! What the program says of itself. (That this test is here also has cargo build the program for the whole-system tests.)

use std::process::Command;

fn millrace(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).output();
    let Ok(output) = output else { return (false, format!("{output:?}")) };
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.success(), said.concat())
}

#[test]
fn every_subcommand_explains_itself() {
    for command in ["up", "gateway", "worker", "scaler", "submit", "config", "model"] {
        let (done, said) = millrace(&[command, "--help"]);
        assert!(done && said.contains("Usage: millrace"), "{command}: {said}");
        let (_, overview) = millrace(&["--help"]);
        assert!(overview.contains(command), "{overview}");
    }
}

#[test]
fn the_schema_of_the_configuration_is_json_and_names_every_section() {
    let (done, said) = millrace(&["config", "schema"]);
    assert!(done, "{said}");
    let schema: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    for section in ["blobs", "broker", "gateway", "ledger", "pools", "scaler", "telemetry"] {
        assert!(schema["properties"][section].is_object(), "{section} is not in {said}");
    }
}

#[test]
fn the_configurations_to_start_from_have_no_faults() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let model = format!("pools.digits.model={root}/models/digits/1");
    for name in ["millrace", "rabbitmq", "kafka", "redis"] {
        let config = format!("{root}/deploy/local/{name}.yaml");
        let (done, said) = millrace(&["config", "check", "--config", &config, "--set", &model]);
        assert!(done, "{config}: {said}");
    }
}
