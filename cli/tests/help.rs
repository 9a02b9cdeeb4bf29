//! Help and descriptions that the program prints. (This test also makes cargo build the program for the whole-system
//! tests.)

use std::process::{Command, Stdio};

use clap::CommandFactory;
use cli::Arguments;

fn millrace(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).output();
    let Ok(output) = output else { return (false, format!("{output:?}")) };
    let printed = [output.stdout, output.stderr].map(|printed| String::from_utf8_lossy(&printed).into_owned());
    (output.status.success(), printed.concat())
}

/// The words of every command, `config show` for example.
fn commands() -> Vec<Vec<String>> {
    fn below(command: &clap::Command, words: &[String], found: &mut Vec<Vec<String>>) {
        for command in command.get_subcommands() {
            let words = [words, &[command.get_name().to_owned()]].concat();
            below(command, &words, found);
            found.push(words);
        }
    }
    let mut found = Vec::new();
    below(&Arguments::command(), &[], &mut found);
    found
}

#[test]
fn every_subcommand_has_help() {
    let overview = millrace(&["--help"]).1;
    for words in commands() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        assert!(words.len() > 1 || overview.contains(&format!("\n  {} ", words[0])), "{words:?}: {overview}");
        arguments.push("--help");
        let (done, printed) = millrace(&arguments);
        assert!(done && printed.contains(&format!("Usage: millrace {}", words.join(" "))), "{words:?}: {printed}");
        let about = printed.lines().next().unwrap_or_default();
        assert!(about.len() > 10, "{words:?}: {printed}");
    }
}

#[test]
fn a_shell_completes_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (done, script) = millrace(&["completions", shell]);
        assert!(done, "{shell}: {script}");
        for words in commands() {
            assert!(script.contains(&words[words.len() - 1]), "{shell}: {words:?}");
        }
    }
    let (_, script) = millrace(&["completions", "bash"]);
    let typed = "COMP_WORDS=(millrace expl); COMP_CWORD=1; _millrace millrace expl millrace; echo \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash").args(["-c", &format!("{script}\n{typed}")]).output();
    let completed = completed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    assert_eq!(completed.unwrap_or_default(), "explain\n");
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

/// Runs the program with this standard output, and with standard error closed too unless it is collected.
fn into_closed_pipe(arguments: &[&str], collects_errors: bool) -> std::process::Output {
    let closed = || std::io::pipe().map(|(_, writer)| Stdio::from(writer)).unwrap_or_else(|error| panic!("{error}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(arguments).stdin(Stdio::null()).stdout(closed());
    command.stderr(if collects_errors { Stdio::piped() } else { closed() });
    command.spawn().and_then(std::process::Child::wait_with_output).unwrap_or_else(|error| panic!("{error}"))
}

/// The pipe is closed before the program writes to it.
#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let pool = ["--set", "pools.echo.model=echo"];
    for (command, settings) in [("schema", &[][..]), ("reference", &[]), ("show", &pool), ("check", &pool)] {
        let output = into_closed_pipe(&[&["config", command], settings].concat(), true);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && printed.is_empty(), "{command}: {}: {printed}", output.status);
    }
}

/// A panic would end the program with 101. Both outputs are closed, so there is no place for a message.
#[test]
fn no_command_panics_when_its_outputs_are_closed() {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("jobs.csv"), "time\n0\n60\n").unwrap_or_else(|error| panic!("{error}"));
    let (load, models) = (path("jobs.csv"), path("models"));
    let nowhere = ["--gateway", "http://127.0.0.1:1"];
    let simulated = ["--latency", "5s", "--batch-base", "7ms", "--batch-item", "23ms", "--batch-limit", "8", "--json"];
    // No pool is configured, so a service refuses its configuration.
    let mut runs: Vec<Vec<&str>> = vec![
        vec!["up"],
        vec!["gateway"],
        vec!["scaler"],
        vec!["worker", "--pool", "echo"],
        vec!["doctor", "--set", "pools.echo.model=echo"],
        [&["simulate", &load], &simulated[..]].concat(),
        vec!["explain", "echo", "--admin", "http://127.0.0.1:1"],
        [&["submit", "--pool", "echo", "--timeout", "1ms", &load], &nowhere[..]].concat(),
        [&["dead", "list"], &nowhere[..]].concat(),
        [&["dead", "show", "a"], &nowhere[..]].concat(),
        [&["dead", "requeue", "a"], &nowhere[..]].concat(),
        [&["dead", "purge", "a"], &nowhere[..]].concat(),
        vec!["completions", "bash"],
        vec!["model", "demo", "resnet50", "--folder", &models, "--weights", "none"],
        vec!["--version"],
        vec!["--help"],
    ];
    runs.extend(["status", "get", "wait", "cancel"].map(|command| [&[command, "a"], &nowhere[..]].concat()));
    runs.extend(["check", "show", "schema", "reference"].map(|command| vec!["config", command]));
    for words in commands() {
        let is_run = runs.iter().any(|run| words.iter().zip(run).all(|(word, run)| word == run));
        assert!(is_run, "{words:?} is not among the commands of this test");
    }
    for arguments in runs {
        let status = into_closed_pipe(&arguments, false).status;
        assert!(status.code().is_some_and(|code| code <= 4), "{arguments:?}: {status}");
    }
}
