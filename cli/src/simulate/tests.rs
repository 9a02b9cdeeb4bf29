//! Scenarios, their reports and their pictures.

use serde_json::Value;
use tempfile::TempDir;

use super::*;

const SCENARIO: &str = "
objective: {latency: 5s, percentile: 95}
worker: {cold_start: 20s, batch_base: 30ms, batch_item: 5ms, batch_limit: 32}
traces:
  steady: {poisson: {rate: 5}, length: 20m, seed: 3}
  recorded: {csv: jobs.csv}
policies:
  plenty: {metadata: {mode: backlog, value: '2'}}
  one & only: {metadata: {mode: backlog, value: '10'}, scaled_object: {maxReplicaCount: 1}}
";

fn folder(scenario: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scenario.yaml"), scenario).unwrap();
    std::fs::write(folder.path().join("jobs.csv"), "time,work\n0,1\n100,2\n").unwrap();
    folder
}

fn arguments(scenario: PathBuf) -> SimulateArgs {
    SimulateArgs {
        scenario: Some(scenario),
        suite: false,
        seed: 1,
        no_oracle: false,
        require: Vec::new(),
        json: false,
        out: None,
        recorded: RecordedArgs::default(),
    }
}

fn printed(folder: &TempDir, json: bool, out: Option<&str>) -> anyhow::Result<String> {
    let scenario = folder.path().join("scenario.yaml");
    let out = out.map(|out| folder.path().join(out));
    let arguments = SimulateArgs { json, out, ..arguments(scenario) };
    let mut text = Vec::new();
    simulate(&arguments, &mut text)?;
    Ok(String::from_utf8(text)?)
}

#[test]
fn every_trace_has_a_table_with_a_row_per_policy() {
    let text = printed(&folder(SCENARIO), false, None).unwrap();
    let of_trace: Vec<_> = text.split("\n\n").filter(|part| !part.trim().is_empty()).collect();
    assert_eq!(of_trace.len(), 2, "{text}");
    assert!(of_trace[0].starts_with("steady: ") && of_trace[1].starts_with("recorded: 2 jobs in 1m40s"), "{text}");
    // The first of two recorded jobs waits for the first worker, so it is late.
    for (table, verdict) in of_trace.into_iter().zip([" met ", " missed "]) {
        let rows: Vec<_> =
            table.lines().filter(|line| line.contains("plenty") || line.contains("one & only")).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(rows[0].contains("plenty") && rows[0].contains(verdict), "{text}");
        assert!(table.contains("objective: 95 % within 5s of their arrival; lower bound: "), "{text}");
    }
}

#[test]
fn the_same_scenario_prints_the_same_bytes_and_another_seed_prints_others() {
    let folder_of_3 = folder(SCENARIO);
    let lines = printed(&folder_of_3, true, None).unwrap();
    assert_eq!(lines, printed(&folder_of_3, true, None).unwrap());
    assert_ne!(lines, printed(&folder(&SCENARIO.replace("seed: 3", "seed: 4")), true, None).unwrap());
    let runs: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> =
        runs.iter().map(|run| (run["trace"].as_str().unwrap(), run["policy"].as_str().unwrap())).collect();
    // No schedule can be in time for the first of the two recorded jobs, so the oracle has none.
    let policies = [("steady", "oracle"), ("steady", "plenty"), ("steady", "one & only")];
    assert_eq!(names, [&policies[..], &[("recorded", "plenty"), ("recorded", "one & only")]].concat());
    // The second job finds the worker of the first one ready, because KEDA waits 300 s before it scales to zero.
    let recorded = &runs[3];
    assert_eq!((recorded["jobs"].as_u64(), recorded["cold_starts"].as_u64()), (Some(2), Some(1)), "{recorded}");
    assert_eq!(recorded["latency_p50_seconds"].as_f64(), Some(0.040), "{recorded}");
    assert_eq!(recorded["within_objective"].as_f64(), Some(0.5), "{recorded}");
}

#[test]
fn a_requirement_decides_the_exit_status_after_the_tables_are_printed() {
    let folder = folder(SCENARIO);
    let run = |require: &str| {
        let arguments = SimulateArgs {
            no_oracle: true,
            require: vec![require.parse().unwrap()],
            ..arguments(folder.path().join("scenario.yaml"))
        };
        let mut text = Vec::new();
        let result = simulate(&arguments, &mut text);
        assert!(!text.is_empty());
        result.map_err(|error| error.to_string())
    };
    assert_eq!(run("attainment>=0.4"), Ok(()));
    let error = run("plenty:attainment>=0.95").unwrap_err();
    assert_eq!(error, "recorded, plenty: attainment>=0.95 does not hold: 0.5000");
}

#[test]
fn pictures_are_drawn_into_a_folder_that_is_created() {
    let folder = folder(SCENARIO);
    printed(&folder, true, Some("some/pictures")).unwrap();
    for name in ["steady", "recorded"] {
        let picture = std::fs::read_to_string(folder.path().join(format!("some/pictures/{name}.svg"))).unwrap();
        assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"), "{name}");
        assert!(picture.contains("plenty") && picture.contains("one &amp; only"), "{name}");
    }
}

#[test]
fn a_scenario_with_faults_is_refused_with_all_of_them() {
    let text = SCENARIO.replace("5s", "5").replace("jobs.csv", "jobs.csv, sed: 1");
    let error = printed(&folder(&text), false, None).unwrap_err().to_string();
    assert!(error.contains("objective.latency: 5 is not a duration such as 250ms, 5s or 1h30m"), "{error}");
    assert!(error.contains("traces.recorded.sed: unknown key (did you mean \"seed\"?)"), "{error}");
    let error = printed(&folder(&SCENARIO.replace("jobs.csv", "other.csv")), false, None).unwrap_err().to_string();
    assert!(error.contains("traces.recorded.csv: ") && error.contains("other.csv: cannot be read"), "{error}");
}

#[test]
fn the_examples_have_no_faults() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/simulation");
    let mut examples_read = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            Scenario::read(&file).unwrap_or_else(|faults| panic!("{}: {faults}", file.display()));
            examples_read += 1;
        }
    }
    assert!(examples_read > 0);
}
