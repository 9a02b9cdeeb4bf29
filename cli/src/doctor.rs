//! `millrace doctor`: what about broker, ledger and configuration may lose or delay jobs.

mod advice;

use std::io::{self, Write};
use std::iter;
use std::process::ExitCode;
use std::time::Duration;

use backends::{BackendUrls, Existing};
use queue::{PoolExpectation, PoolName, Result, Risk, Roster, Severity, WorkerRecord};
use serde_json::json;
use tokio::time::timeout;

use crate::services;
use crate::settings::Settings;
use crate::table::{shortened, table};

/// How long one question to a server may take.
const ANSWER: Duration = Duration::from_secs(30);

/// What is opened before either is asked.
const BOTH: &str = "broker and ledger";

/// How many batches go by between the moment that a worker receives a job and the one that it settles it: it holds two
/// batches per instance, and the result has to be written.
const HELD_BATCHES: f64 = 3.0;

/// The longest text in a cell, in characters.
const SHOWN: usize = 300;

/// Looks at everything, prints what was found, the worst first; fails if any of it is severe.
pub(crate) async fn doctor(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let risks = examine(settings, &settings.backend_urls()?).await;
    print(&risks, json, &mut io::stdout())?;
    let is_severe = risks.iter().any(|risk| risk.severity == Severity::Severe);
    Ok(if is_severe { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(settings: &Settings, urls: &BackendUrls) -> Vec<Risk> {
    let mut risks = advice::of_settings(settings, urls);
    if let Err(error) = services::pools_of_gateway(settings) {
        risks.push(Risk {
            severity: Severity::Severe,
            subject: "model".to_owned(),
            setting: "pools.*.model".to_owned(),
            found: error.to_string(),
            why: "neither gateway nor workers start".to_owned(),
            advice: "name a folder that holds model.yaml and model.pt".to_owned(),
        });
    }
    // Nothing is made: this may be asked of a machine on which nothing is to run.
    match ask(BOTH, &format!("{}, {}", urls.broker(), urls.ledger()), Existing::open(urls)).await {
        Ok(existing) => risks.extend(look(settings, urls, &existing).await),
        Err(risk) => risks.push(*risk),
    }
    // Broker and ledger in one place say the same of it.
    let mut told = Vec::<Risk>::with_capacity(risks.len());
    for risk in risks {
        if !told.contains(&risk) {
            told.push(risk);
        }
    }
    told.sort_by_key(|risk| std::cmp::Reverse(risk.severity));
    told
}

async fn look(settings: &Settings, urls: &BackendUrls, existing: &Existing) -> Vec<Risk> {
    let (of_broker, of_ledger) = (urls.broker().to_string(), urls.ledger().to_string());
    let (pools, mut risks) = expectations(settings, existing.roster.as_deref(), &of_ledger).await;
    risks.extend(existing.risks.iter().cloned());
    if let Some(broker) = &existing.broker {
        let told = ask("broker", &of_broker, broker.risks(&pools)).await;
        risks.extend(told.unwrap_or_else(|risk| vec![*risk]));
    }
    if let Some(ledger) = &existing.ledger {
        let told = ask("ledger", &of_ledger, ledger.risks()).await;
        risks.extend(told.unwrap_or_else(|risk| vec![*risk]));
    }
    risks
}

/// What each pool asks of its broker, by its configuration and what its workers have measured.
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
        Some(roster) => ask("roster", ledger, roster.workers(&names)).await.unwrap_or_else(|risk| {
            risks.push(*risk);
            Vec::new()
        }),
        None => Vec::new(),
    };
    // Of a roster that does not answer, as if there were no workers.
    let workers = workers.into_iter().chain(iter::repeat(Vec::new()));
    for ((pool, of_pool), workers) in named.into_iter().zip(workers) {
        let name = pool.as_str();
        let batch = slowest_batch(&workers);
        risks.extend(batch.and_then(|batch| advice::of_batch_time(name, of_pool, batch)));
        pools.push(PoolExpectation {
            pool,
            max_workers: of_pool.scale.max,
            deadline: of_pool.jobs.deadline.map(service::Period::get),
            holding: batch.map(|batch| batch.mul_f64(HELD_BATCHES)),
        });
    }
    (pools, risks)
}

/// The longest batch time that a worker measured; `None` where none has run a batch.
fn slowest_batch(workers: &[WorkerRecord]) -> Option<Duration> {
    let seconds = workers.iter().map(|worker| worker.batch_seconds).filter(|seconds| *seconds > 0.0);
    seconds.reduce(f64::max).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// The answer; what does not answer in time, or with an error, is a finding itself.
async fn ask<T>(what: &str, subject: &str, question: impl Future<Output = Result<T>>) -> Result<T, Box<Risk>> {
    let found = match timeout(ANSWER, question).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
    };
    Err(Box::new(Risk {
        severity: Severity::Severe,
        subject: subject.to_owned(),
        setting: what.to_owned(),
        found,
        why: "without it no job is taken, run or told of".to_owned(),
        advice: match what {
            // Nobody was asked yet: a folder, or a file that a URL names, is at fault.
            BOTH => "put right what is named there, or set `broker` and `ledger` to where they are".to_owned(),
            "broker" => "start it, or set `broker` to where it is".to_owned(),
            _ => "start it, or set `ledger` to where it is".to_owned(),
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
        return writeln!(out, "no risks were found");
    }
    let mut rows = table(&["severity", "what", "setting", "found", "why it matters", "what to do"]);
    rows.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    for risk in risks {
        let texts = [&risk.subject, &risk.setting, &risk.found, &risk.why, &risk.advice];
        let texts = texts.into_iter().map(|text| shortened(text, SHOWN));
        rows.add_row(std::iter::once(risk.severity.to_string()).chain(texts));
    }
    writeln!(out, "{rows}")?;
    let severe = risks.iter().filter(|risk| risk.severity == Severity::Severe).count();
    let risks = if risks.len() == 1 { "1 risk".to_owned() } else { format!("{} risks", risks.len()) };
    writeln!(out, "{risks}, {severe} of them severe")
}

#[cfg(test)]
mod tests;
