//! `millrace doctor`: risks of losing or delaying jobs, found in broker, ledger and configuration.

mod advice;
mod room;

use std::io::{self, Write};
use std::iter;
use std::process::ExitCode;
use std::time::Duration;

use backends::{BackendUrls, Existing};
use queue::{Blobs, PoolExpectation, PoolName, Result, Risk, Roster, Severity, WorkerRecord};
use serde_json::json;
use tokio::time::timeout;

use self::room::Endings;
use crate::exit;
use crate::output::Output;
use crate::services;
use crate::settings::Settings;
use crate::table::{shortened, table};

/// The time limit for one call to a server.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The subject of an error that occurs before the broker or the ledger is called.
const BOTH: &str = "broker and ledger";

/// The number of batch times between the receipt of a job and its settlement. A worker holds two batches per instance,
/// and then writes the result.
const HOLDING_BATCHES: f64 = 3.0;

/// The longest text in a cell, in characters.
const CELL_WIDTH: usize = 300;

/// Prints all risks, the worst first. The exit code is 3 if a risk is severe.
/// The rate at which jobs end is measured for the time `measure`.
pub(crate) async fn doctor(settings: &Settings, json: bool, measure: Duration) -> anyhow::Result<ExitCode> {
    let risks = examine(settings, &settings.backend_urls()?, measure).await;
    print(&risks, json, &mut Output)?;
    let is_severe = risks.iter().any(|risk| risk.severity == Severity::Severe);
    Ok(exit::of_answer(!is_severe))
}

async fn examine(settings: &Settings, urls: &BackendUrls, measure: Duration) -> Vec<Risk> {
    let mut risks = advice::of_settings(settings, urls);
    if let Err(error) = services::pools_of_gateway(settings) {
        risks.push(Risk {
            severity: Severity::Severe,
            subject: "model".to_owned(),
            setting: "pools.*.model".to_owned(),
            found: error.to_string(),
            why: "gateway and workers cannot start".to_owned(),
            advice: "name a folder that holds model.yaml and model.pt".to_owned(),
        });
    }
    // The check creates nothing, because no service needs to run on this machine.
    match call(BOTH, &format!("{}, {}", urls.broker(), urls.ledger()), Existing::open(urls)).await {
        Ok(existing) => {
            let room = check_room(settings, &existing, measure);
            let (of_backend, of_room) = tokio::join!(check_backend(settings, urls, &existing), room);
            risks.extend(of_backend.into_iter().chain(of_room));
        }
        Err(risk) => risks.push(*risk),
    }
    // A server that is both broker and ledger reports the same risk twice.
    let mut distinct = Vec::<Risk>::with_capacity(risks.len());
    for risk in risks {
        if !distinct.contains(&risk) {
            distinct.push(risk);
        }
    }
    distinct.sort_by_key(|risk| std::cmp::Reverse(risk.severity));
    distinct
}

async fn check_backend(settings: &Settings, urls: &BackendUrls, existing: &Existing) -> Vec<Risk> {
    let (of_broker, of_ledger) = (urls.broker().to_string(), urls.ledger().to_string());
    let (pools, mut risks) = expectations(settings, existing.roster.as_deref(), &of_ledger).await;
    risks.extend(existing.risks.iter().cloned());
    if let Some(broker) = &existing.broker {
        let found = call("broker", &of_broker, broker.risks(&pools)).await;
        risks.extend(found.unwrap_or_else(|risk| vec![*risk]));
    }
    if let Some(ledger) = &existing.ledger {
        let found = call("ledger", &of_ledger, ledger.risks()).await;
        risks.extend(found.unwrap_or_else(|risk| vec![*risk]));
    }
    risks.extend(check_blobs(settings, existing).await);
    risks
}

/// The risk that the records of ended jobs will fill the ledger's store. An unreachable ledger is reported elsewhere.
async fn check_room(settings: &Settings, existing: &Existing, measure: Duration) -> Option<Risk> {
    let ledger = existing.ledger.as_deref()?;
    let read = async || timeout(CALL_TIMEOUT, Endings::read(settings, ledger)).await.ok()?.ok();
    let before = read().await.filter(|before| before.any())?;
    before.wait(measure).await;
    let after = read().await?;
    timeout(CALL_TIMEOUT, room::risk(settings, ledger, &before, &after)).await.ok()?.ok()?
}

/// The risk of the blob store, if there is one. Creates nothing. A machine without the folder has no risk: no service needs
/// to run there.
async fn check_blobs(settings: &Settings, existing: &Existing) -> Option<Risk> {
    let (setting, place) = settings.blobs.place();
    let found = match (&settings.blobs.url, &settings.blobs.folder) {
        (None, Some(folder)) => Blobs::id_of_directory(folder),
        // Without a store, one that belongs to the ledger is missing here.
        (None, None) => Some("none".to_owned()),
        (Some(_), _) => match call(setting, &place, async { settings.blobs.open()?.existing_id().await }).await {
            Ok(found) => found,
            Err(risk) => return Some(*risk),
        },
    };
    // An unreachable ledger is reported elsewhere.
    let recorded = timeout(CALL_TIMEOUT, existing.ledger.as_ref()?.blob_store(None)).await.ok()?.ok()??;
    advice::of_blob_store(settings, &found?, &recorded)
}

/// The demands of each pool on its broker, from its configuration and the measurements of its workers.
async fn expectations(
    settings: &Settings,
    roster: Option<&dyn Roster>,
    ledger: &str,
) -> (Vec<PoolExpectation>, Vec<Risk>) {
    let (mut pools, mut risks) = (Vec::new(), Vec::new());
    let named: Vec<_> =
        settings.pools.iter().filter_map(|(name, of_pool)| Some((name.parse().ok()?, of_pool))).collect();
    let names: Vec<PoolName> = named.iter().map(|(pool, _): &(PoolName, _)| pool.clone()).collect();
    let workers = match roster {
        Some(roster) => call("roster", ledger, roster.workers(&names)).await.unwrap_or_else(|risk| {
            risks.push(*risk);
            Vec::new()
        }),
        None => Vec::new(),
    };
    // Without an answer from the roster, the pools count as pools without workers.
    let workers = workers.into_iter().chain(iter::repeat(Vec::new()));
    for ((pool, of_pool), workers) in named.into_iter().zip(workers) {
        let name = pool.as_str();
        let batch = slowest_batch(&workers);
        risks.extend(batch.and_then(|batch| advice::of_batch_time(name, of_pool, batch)));
        risks.extend(slowest_start(&workers).and_then(|start| advice::of_cold_start(name, of_pool, start)));
        pools.push(PoolExpectation {
            pool,
            max_workers: of_pool.scale.max,
            deadline: of_pool.jobs.deadline.map(service::Period::get),
            holding: batch.map(|batch| batch.mul_f64(HOLDING_BATCHES)),
        });
    }
    (pools, risks)
}

/// The longest batch time that a worker measured; `None` if no worker has run a batch.
fn slowest_batch(workers: &[WorkerRecord]) -> Option<Duration> {
    longest(workers.iter().map(|worker| worker.batch_seconds))
}

/// The longest cold start that a worker measured; `None` if no worker was ready.
fn slowest_start(workers: &[WorkerRecord]) -> Option<Duration> {
    longest(workers.iter().map(|worker| worker.cold_start_seconds))
}

fn longest(seconds: impl Iterator<Item = f64>) -> Option<Duration> {
    let measured = seconds.filter(|seconds| *seconds > 0.0);
    measured.reduce(f64::max).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// The result of a call. An error is also a risk, and so is an answer that does not come in time.
async fn call<T>(setting: &str, subject: &str, call: impl Future<Output = Result<T>>) -> Result<T, Box<Risk>> {
    let found = match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
    };
    Err(Box::new(Risk {
        severity: Severity::Severe,
        subject: subject.to_owned(),
        setting: setting.to_owned(),
        found,
        why: "without it no job can be accepted, run or followed".to_owned(),
        advice: match setting {
            // No server was called yet, so the cause is a folder or a file that a URL names.
            BOTH => "correct the folder or file named here, or change `broker` and `ledger`".to_owned(),
            setting if setting.starts_with("blobs") => {
                "correct the URL, or endpoint and credentials in the environment".to_owned()
            }
            "broker" => "start the server, or set `broker` to its URL".to_owned(),
            _ => "start the server, or set `ledger` to its URL".to_owned(),
        },
    }))
}

fn print(risks: &[Risk], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return risks.iter().try_for_each(|risk| {
            let line = json!({
                "severity": risk.severity.as_str(),
                "subject": risk.subject,
                "setting": risk.setting,
                "found": risk.found,
                "why": risk.why,
                "advice": risk.advice,
            });
            writeln!(out, "{line}")
        });
    }
    if risks.is_empty() {
        return writeln!(out, "no risks found");
    }
    let mut rows = table(&["severity", "subject", "setting", "found", "effect", "advice"]);
    rows.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    for risk in risks {
        let texts = [&risk.subject, &risk.setting, &risk.found, &risk.why, &risk.advice];
        let texts = texts.into_iter().map(|text| shortened(text, CELL_WIDTH));
        rows.add_row(std::iter::once(risk.severity.to_string()).chain(texts));
    }
    writeln!(out, "{rows}")?;
    let severe = risks.iter().filter(|risk| risk.severity == Severity::Severe).count();
    let risks = if risks.len() == 1 { "1 risk".to_owned() } else { format!("{} risks", risks.len()) };
    writeln!(out, "{risks}, {severe} of them severe")
}

#[cfg(test)]
mod tests;
