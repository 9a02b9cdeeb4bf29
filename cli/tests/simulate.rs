//! `millrace simulate TRACE.csv`.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const CURVE: [&str; 6] = ["--batch-base", "7ms", "--batch-item", "23ms", "--batch-limit", "8"];

/// Ten minutes of two pools, one job a second each.
fn recorded() -> anyhow::Result<TempDir> {
    let folder = TempDir::new()?;
    let rows: String = (0..600).map(|second| format!("{second},text,1\n{second}.5,images,2\n")).collect();
    std::fs::write(folder.path().join("jobs.csv"), format!("time,pool,work\n{rows}"))?;
    Ok(folder)
}

/// Whether it succeeded, and what it printed and complained of.
fn simulate(folder: &Path, file: &str, arguments: &[&str]) -> anyhow::Result<(bool, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let output = command.arg("simulate").arg(folder.join(file)).args(arguments).output()?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

#[test]
fn every_pool_of_a_recorded_load_is_tried_with_both_modes_and_the_oracle_and_what_was_assumed_is_said() {
    let folder = recorded().unwrap();
    let arguments = [&CURVE[..], &["--latency", "5s"]].concat();
    let (done, said, complained) = simulate(folder.path(), "jobs.csv", &arguments).unwrap();
    assert!(done, "{complained}");
    assert!(said.starts_with("assumed: --percentile 95; --cold-start 1m; "), "{said}");
    let tables: Vec<&str> = said.split("\n\n").skip(1).filter(|part| !part.trim().is_empty()).collect();
    assert_eq!(tables.len(), 2, "{said}");
    assert!(tables[0].starts_with("text: 600 jobs in ") && tables[1].starts_with("images: 600 jobs in "), "{said}");
    for table in tables {
        for policy in ["oracle", "latency", "backlog"] {
            assert_eq!(table.lines().filter(|line| line.starts_with(&format!("│ {policy} "))).count(), 1, "{said}");
        }
        assert!(table.contains("objective: 95 % within 5s, 1m more"), "{said}");
    }

    let told = ["--percentile", "90", "--cold-start", "10s", "--pool", "images", "--json"];
    let (done, said, complained) = simulate(folder.path(), "jobs.csv", &[&arguments[..], &told].concat()).unwrap();
    assert!(done && complained.starts_with("assumed: a job without work is 1 item"), "{complained}");
    let runs: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> =
        runs.iter().map(|run| (run["trace"].as_str().unwrap(), run["policy"].as_str().unwrap())).collect();
    assert_eq!(names, [("images", "oracle"), ("images", "latency"), ("images", "backlog")]);
}

#[test]
fn what_a_trace_does_not_say_must_be_told_and_what_is_told_must_make_sense() {
    let folder = recorded().unwrap();
    let (done, said, complained) = simulate(folder.path(), "jobs.csv", &["--batch-limit", "8"]).unwrap();
    assert!(!done && said.is_empty(), "{said}");
    for missing in ["--latency: is missing", "--batch-base: is missing", "--batch-item: is missing"] {
        assert!(complained.contains(missing), "{complained}");
    }
    assert!(!complained.contains("--batch-limit: is missing"), "{complained}");

    let refused = |file: &str, arguments: &[&str]| {
        let (done, said, complained) = simulate(folder.path(), file, &[&CURVE[..], arguments].concat()).unwrap();
        assert!(!done && said.is_empty(), "{said}");
        complained
    };
    for (arguments, expected) in [
        (&["--latency", "0s"][..], "--latency: 0s is not more than 0s and at most 1d"),
        (&["--latency", "5"], "is not a duration such as 250ms, 5s or 1h30m"),
        (&["--latency", "5s", "--percentile", "0"], "--percentile: 0 is not more than 0"),
        (&["--latency", "5s", "--percentile", "20"], "--percentile: \"20\" is not a number from 50 to 99.99"),
        (&["--latency", "5s", "--pool", "sound"], "no row has the pool \"sound\""),
    ] {
        let complained = refused("jobs.csv", arguments);
        assert!(complained.contains(expected), "{arguments:?}: {complained}");
    }
    assert!(refused("none.csv", &["--latency", "5s"]).contains("none.csv: cannot be read"));
    std::fs::write(folder.path().join("odd.csv"), "time,pool\n1,a/b\n").unwrap();
    let complained = refused("odd.csv", &["--latency", "5s"]);
    assert!(complained.contains("odd.csv: pool a/b: the name \"a/b\" is not 1 to 60 letters"), "{complained}");
    std::fs::write(folder.path().join("bad.csv"), "time,pool\n1,text\nsoon,images\n").unwrap();
    let complained = refused("bad.csv", &["--latency", "5s"]);
    assert_eq!(complained.matches("bad.csv line 3, column time: \"soon\" is not a number").count(), 1, "{complained}");
    assert!(!complained.contains("traces."), "{complained}");
    assert!(refused("some.yaml", &[]).contains("--batch-base: is for a TRACE.csv; in "));
}
