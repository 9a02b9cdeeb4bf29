//! Risks, and the report of them.

use std::path::Path;

use jiff::Timestamp;
use queue::{PoolName, WorkerId, WorkerState};
use queue_contract::faulty::{Call, Fault, Faulty};
use service::{Sources, config};

use super::*;

fn settings(folder: &Path, more: &[&str]) -> Settings {
    let data = format!("broker=embedded:{}", folder.join("data").display());
    let flags = [data.as_str(), "pools.echo.model=echo"].into_iter().chain(more.iter().copied());
    config::load(&Sources { flags: flags.map(str::to_owned).collect(), ..Sources::default() }).unwrap()
}

async fn examined(settings: &Settings) -> Vec<Risk> {
    examine(settings, &settings.backend_urls().unwrap(), Duration::ZERO).await
}

fn find<'a>(risks: &'a [Risk], setting: &str) -> Option<&'a Risk> {
    risks.iter().find(|risk| risk.setting == setting)
}

fn risk(severity: Severity, setting: &str) -> Risk {
    let text = |what: &str| format!("{what} of {setting}");
    Risk {
        severity,
        subject: text("subject"),
        setting: setting.to_owned(),
        found: text("found"),
        why: text("why"),
        advice: text("advice"),
    }
}

#[tokio::test]
async fn risks_of_the_configuration_are_found_and_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let risky = ["pools.echo.jobs.max_attempts=1", "pools.echo.jobs.deadline=2h", "pools.echo.jobs.retention=1h"];
    let risks = examined(&settings(folder.path(), &risky)).await;
    let (attempts, retention) = ("pools.echo.jobs.max_attempts", "pools.echo.jobs.retention");
    assert_eq!(find(&risks, attempts).unwrap().found, "1");
    assert!(
        find(&risks, retention).unwrap().found.contains("1h") && find(&risks, retention).unwrap().found.contains("2h")
    );
    for (index, risk) in risks.iter().enumerate() {
        assert!(!risks[..index].contains(risk), "reported twice: {risk:?}");
    }
    let risks = examined(&settings(folder.path(), &[])).await;
    assert_eq!((find(&risks, attempts), find(&risks, retention)), (None, None));
}

#[tokio::test]
async fn a_model_that_is_missing_is_severe() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("pools.echo.model={}", folder.path().join("nothing").display());
    let risks = examined(&settings(folder.path(), &[&missing])).await;
    assert_eq!(find(&risks, "pools.*.model").unwrap().severity, Severity::Severe);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_used_is_severe() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), "no folder").unwrap();
    let risks = examined(&settings(folder.path(), &[])).await;
    let found = find(&risks, "broker and ledger").unwrap();
    assert_eq!(found.severity, Severity::Severe);
    assert!(found.found.contains("data folder"), "{found:?}");
    assert!(found.advice.contains("`broker` and `ledger`"), "{found:?}");
}

#[tokio::test]
async fn a_missing_data_folder_is_reported_and_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), &[]);
    let risks = examined(&settings).await;
    let found = find(&risks, "data file").unwrap();
    assert_eq!((found.severity, found.found.as_str()), (Severity::Warning, "nothing there yet"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    backends::open(&settings.backend_urls().unwrap()).await.unwrap();
    assert_eq!(find(&examined(&settings).await, "data file"), None);
}

#[test]
fn a_short_retention_is_found_without_a_deadline_too() {
    let folder = tempfile::tempdir().unwrap();
    let retention = |more: &[&str]| {
        let settings = settings(folder.path(), more);
        let risks = advice::of_settings(&settings, &settings.backend_urls().unwrap());
        find(&risks, "pools.echo.jobs.retention").map(|risk| (risk.found.clone(), risk.advice.clone()))
    };
    let elsewhere = ["broker=redis://127.0.0.1:1", "pools.echo.jobs.retention=1h"];
    let (found, advice) = retention(&elsewhere).unwrap();
    assert!(found.contains("without a deadline") && advice.contains("pools.echo.jobs.deadline"), "{found} {advice}");
    assert_eq!(retention(&elsewhere[1..]), None, "the embedded broker");
    assert_eq!(retention(&elsewhere[..1]), None, "the default is a day");
    assert_eq!(retention(&[elsewhere[0], elsewhere[1], "pools.echo.jobs.deadline=30m"]), None);
}

#[tokio::test]
async fn an_unreachable_server_is_severe_and_hides_no_other_risk() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), &[]);
    let urls = settings.backend_urls().unwrap();
    let backend = backends::open(&urls).await.unwrap();
    let sound = check_backend(&settings, &urls, &backend.clone().into()).await;
    let faulty = Faulty::default();
    faulty.order(Call::Risks, Fault::Fail, 1);
    let risks = check_backend(&settings, &urls, &faulty.wrap(backend).into()).await;
    // The broker is checked first. The risks of the ledger are reported too.
    assert_eq!((risks[0].setting.as_str(), risks[0].severity), ("broker", Severity::Severe));
    assert!(sound.iter().all(|risk| risks[1..].contains(risk)));
}

#[tokio::test]
async fn a_batch_time_above_the_drain_timeout_and_a_cold_start_above_the_latency_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let trigger = ["pools.echo.scale.trigger.mode=latency", "pools.echo.scale.trigger.latency=5s"];
    let seven = settings(folder.path(), &[trigger[0], trigger[1], "pools.echo.scale.max=7"]);
    let backend = backends::open(&seven.backend_urls().unwrap()).await.unwrap();
    let pool: PoolName = "echo".parse().unwrap();
    let (none, risks) = expectations(&seven, Some(&*backend.roster), "ledger").await;
    assert_eq!((none[0].max_workers, none[0].holding, risks), (7, None, Vec::new()));
    for (id, batch_seconds, cold_start_seconds) in [("fast", 0.5, 60.0), ("slow", 20.0, 1.0)] {
        let worker = WorkerRecord {
            id: WorkerId::new(id),
            pool: pool.clone(),
            state: WorkerState::Busy,
            started_at: Timestamp::now(),
            batch_items: 8.0,
            batch_seconds,
            batch_base_seconds: 0.1,
            batch_item_seconds: 0.1,
            batch_limit_items: 8,
            cold_start_seconds,
        };
        backend.roster.heartbeat(&worker, Duration::from_secs(60)).await.unwrap();
    }
    let (pools, risks) = expectations(&seven, Some(&*backend.roster), "ledger").await;
    assert_eq!(pools[0].holding, Some(Duration::from_secs(60)));
    assert!(find(&risks, "pools.echo.worker.drain_timeout").unwrap().found.contains("20s"), "{risks:?}");
    let latency = "pools.echo.scale.trigger.latency";
    assert_eq!(find(&risks, latency).unwrap().found, "5s, and a cold start takes 1m", "{risks:?}");
    // A pool that is never empty has a worker for its first job.
    let kept = settings(folder.path(), &[trigger[0], trigger[1], "pools.echo.scale.trigger.minWorkers=1"]);
    let (_, risks) = expectations(&kept, Some(&*backend.roster), "ledger").await;
    assert_eq!(find(&risks, latency), None);
}

#[test]
fn the_report_names_every_part_of_a_risk_and_counts_the_severe_ones() {
    let risks = [risk(Severity::Severe, "one"), risk(Severity::Warning, "two")];
    let printed = |risks: &[Risk], json: bool| {
        let mut out = Vec::new();
        print(risks, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = printed(&risks, false);
    for part in ["severe", "warning", "subject of one", "found of two", "why of one", "advice of two"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.ends_with("2 risks, 1 of them severe\n"), "{text}");
    let lines: Vec<serde_json::Value> =
        printed(&risks, true).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["severity"], &lines[1]["setting"]), (2, &json!("severe"), &json!("two")));
    assert_eq!(printed(&[], false), "no risks found\n");
}

#[tokio::test]
async fn another_blob_store_than_that_of_the_ledger_is_severe() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = |name: &str| format!("blobs.folder={}", folder.path().join(name).display());
    services::Opened::open(&settings(folder.path(), &[&blobs("blobs")])).await.unwrap();
    for (store, severity) in [("blobs", None), ("missing", None), ("other", Some(Severity::Severe))] {
        if store == "other" {
            queue::Blobs::directory(&folder.path().join(store), 1024).unwrap();
        }
        let risks = examined(&settings(folder.path(), &[&blobs(store)])).await;
        assert_eq!(find(&risks, "blobs.folder").map(|risk| risk.severity), severity, "{store}");
    }
    assert!(!folder.path().join("missing").exists());
}
