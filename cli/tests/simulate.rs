//! `millrace simulate TRACE.csv`.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// The batch time model of the simulated worker.
const BATCH_TIME: [&str; 6] = ["--batch-base", "7ms", "--batch-item", "23ms", "--batch-limit", "8"];

/// A load of half an hour: two pools with one job per second each.
fn recorded() -> anyhow::Result<TempDir> {
    let folder = TempDir::new()?;
    let rows: String = (0..1800).map(|second| format!("{second},text,1\n{second}.5,images,2\n")).collect();
    std::fs::write(folder.path().join("jobs.csv"), format!("time,pool,work\n{rows}"))?;
    Ok(folder)
}

/// Whether the command succeeded, and its outputs: standard output and standard error.
fn simulate(folder: &Path, file: &str, arguments: &[&str]) -> anyhow::Result<(bool, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let output = command.arg("simulate").arg(folder.join(file)).args(arguments).output()?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

#[test]
fn every_pool_of_a_recorded_load_is_simulated_with_both_modes_and_the_oracle_and_assumptions_are_printed() {
    let folder = recorded().unwrap();
    let arguments = [&BATCH_TIME[..], &["--latency", "5s"]].concat();
    let (done, printed, errors) = simulate(folder.path(), "jobs.csv", &arguments).unwrap();
    assert!(done, "{errors}");
    assert!(printed.starts_with("assumed: --percentile 95; --cold-start 1m; "), "{printed}");
    let tables: Vec<&str> = printed.split("\n\n").skip(1).filter(|part| !part.trim().is_empty()).collect();
    assert_eq!(tables.len(), 2, "{printed}");
    assert!(
        tables[0].starts_with("text: 1800 jobs in ") && tables[1].starts_with("images: 1800 jobs in "),
        "{printed}"
    );
    for table in tables {
        for policy in ["oracle", "latency", "backlog"] {
            assert_eq!(table.lines().filter(|line| line.starts_with(&format!("│ {policy} "))).count(), 1, "{printed}");
        }
        assert!(table.contains("objective: 95 % within 5s of their arrival; lower bound: "), "{printed}");
    }

    let more = ["--percentile", "90", "--cold-start", "10s", "--pool", "images", "--json"];
    let (done, printed, errors) = simulate(folder.path(), "jobs.csv", &[&arguments[..], &more].concat()).unwrap();
    assert!(done && errors.contains("assumed: a job without work is 1 item"), "{errors}");
    let runs: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> =
        runs.iter().map(|run| (run["trace"].as_str().unwrap(), run["policy"].as_str().unwrap())).collect();
    assert_eq!(names, [("images", "oracle"), ("images", "latency"), ("images", "backlog")]);
}

#[test]
fn missing_and_invalid_options_of_a_recorded_load_are_refused() {
    let folder = recorded().unwrap();
    let (done, printed, errors) = simulate(folder.path(), "jobs.csv", &["--batch-limit", "8"]).unwrap();
    assert!(!done && printed.is_empty(), "{printed}");
    for missing in ["--latency: is missing", "--batch-base: is missing", "--batch-item: is missing"] {
        assert!(errors.contains(missing), "{errors}");
    }
    assert!(!errors.contains("--batch-limit: is missing"), "{errors}");

    let refused = |file: &str, arguments: &[&str]| {
        let (done, printed, errors) = simulate(folder.path(), file, &[&BATCH_TIME[..], arguments].concat()).unwrap();
        assert!(!done && printed.is_empty(), "{printed}");
        errors
    };
    for (arguments, expected) in [
        (&["--latency", "0s"][..], "--latency: 0s is not more than 0s and at most 1d"),
        (&["--latency", "5"], "is not a duration such as 250ms, 5s or 1h30m"),
        (&["--latency", "5s", "--percentile", "0"], "--percentile: 0 is not more than 0"),
        (&["--latency", "5s", "--percentile", "20"], "--percentile: \"20\" is not a number from 50 to 99.99"),
        (&["--latency", "5s", "--pool", "sound"], "no row has the pool \"sound\""),
    ] {
        let errors = refused("jobs.csv", arguments);
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    assert!(refused("none.csv", &["--latency", "5s"]).contains("none.csv: cannot be read"));
    std::fs::write(folder.path().join("odd.csv"), "time,pool\n1,a/b\n").unwrap();
    let errors = refused("odd.csv", &["--latency", "5s"]);
    assert!(errors.contains("odd.csv: pool a/b: the name \"a/b\" is not 1 to 60 letters"), "{errors}");
    std::fs::write(folder.path().join("bad.csv"), "time,pool\n1,text\nsoon,images\n").unwrap();
    let errors = refused("bad.csv", &["--latency", "5s"]);
    assert_eq!(errors.matches("bad.csv line 3, column time: \"soon\" is not a number").count(), 1, "{errors}");
    assert!(!errors.contains("traces."), "{errors}");
    assert!(refused("some.yaml", &[]).contains("--batch-base: is for a TRACE.csv; in "));
}
