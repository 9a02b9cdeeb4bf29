//! Help and descriptions that the program prints. (This test also makes cargo build the program for the whole-system
//! tests.)

use std::process::Command;

fn millrace(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).output();
    let Ok(output) = output else { return (false, format!("{output:?}")) };
    let printed = [output.stdout, output.stderr].map(|printed| String::from_utf8_lossy(&printed).into_owned());
    (output.status.success(), printed.concat())
}

#[test]
fn every_subcommand_has_help() {
    for command in ["up", "gateway", "worker", "scaler", "submit", "config", "model"] {
        let (done, printed) = millrace(&[command, "--help"]);
        assert!(done && printed.contains("Usage: millrace"), "{command}: {printed}");
        let (_, overview) = millrace(&["--help"]);
        assert!(overview.contains(command), "{overview}");
    }
}

#[test]
fn the_schema_of_the_configuration_is_json_and_names_every_section() {
    let (done, printed) = millrace(&["config", "schema"]);
    assert!(done, "{printed}");
    let schema: serde_json::Value = serde_json::from_str(&printed).unwrap_or_default();
    for section in ["blobs", "broker", "gateway", "ledger", "pools", "scaler", "telemetry"] {
        assert!(schema["properties"][section].is_object(), "{section} is not in {printed}");
    }
}

#[test]
fn the_example_configurations_have_no_faults() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let model = format!("pools.digits.model={root}/models/digits/1");
    for name in ["millrace", "rabbitmq", "kafka", "redis"] {
        let config = format!("{root}/deploy/local/{name}.yaml");
        let (done, printed) = millrace(&["config", "check", "--config", &config, "--set", &model]);
        assert!(done, "{config}: {printed}");
    }
}

#[test]
fn the_reference_of_the_configuration_is_up_to_date() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let (done, printed) = millrace(&["config", "reference"]);
    assert!(done, "{printed}");
    let page = std::fs::read_to_string(page).unwrap_or_default();
    let different = page.lines().zip(printed.lines()).find(|(old, new)| old != new);
    assert!(page == printed, "docs/configuration.md is not up to date: run `make reference`; {different:?}");
}

/// The pipe is closed before the program writes to it.
#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let pool = ["--set", "pools.echo.model=echo"];
    for (command, settings) in [("schema", &[][..]), ("reference", &[]), ("show", &pool), ("check", &pool)] {
        let (reader, writer) = std::io::pipe().unwrap_or_else(|error| panic!("{error}"));
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(["config", command])
            .args(settings)
            .stdout(writer)
            .output();
        let Ok(output) = output else { panic!("{command}: {output:?}") };
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && printed.is_empty(), "{command}: {}: {printed}", output.status);
    }
}
