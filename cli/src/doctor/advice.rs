//! What the configuration alone says.

use std::time::Duration;

use backends::{BackendUrl, BackendUrls};
use queue::{Risk, Severity};
use service::Period;

use crate::settings::{PoolSettings, Settings};

/// A job without a deadline may come again whenever its broker comes back. A day of that is to be reckoned with.
const LEAST_RETENTION: Period = Period::seconds(24 * 3600);

/// What can be seen without asking anybody.
pub(super) fn of_settings(settings: &Settings, urls: &BackendUrls) -> Vec<Risk> {
    let mut risks = Vec::new();
    let is_embedded = |url: &BackendUrl| matches!(url, BackendUrl::Embedded { .. });
    if !is_embedded(urls.broker()) {
        if is_embedded(urls.ledger()) {
            risks.push(Risk {
                severity: Severity::Warning,
                subject: "ledger".to_owned(),
                setting: "ledger".to_owned(),
                found: urls.ledger().to_string(),
                why: "each machine would have a ledger of its own, and jobs would run twice".to_owned(),
                advice: "run all processes on one machine, or name a Redis as the ledger".to_owned(),
            });
        }
        risks.push(Risk {
            severity: Severity::Warning,
            subject: "blobs".to_owned(),
            setting: "blobs.folder".to_owned(),
            found: settings.blobs.folder.display().to_string(),
            why: format!(
                "inputs above {} are files: what one machine writes another must read",
                settings.blobs.inline_limit
            ),
            advice: "make sure that gateway and workers see the same folder there".to_owned(),
        });
    }
    for (name, pool) in &settings.pools {
        risks.extend(of_pool(name, pool, is_embedded(urls.broker())));
    }
    risks
}

fn of_pool(name: &str, pool: &PoolSettings, has_embedded_broker: bool) -> Vec<Risk> {
    let mut risks = Vec::new();
    let jobs = &pool.jobs;
    if jobs.max_attempts.get() == 1 {
        risks.push(Risk {
            severity: Severity::Warning,
            subject: format!("pool {name}"),
            setting: format!("pools.{name}.jobs.max_attempts"),
            found: "1".to_owned(),
            why: "a job whose worker is taken away is dead".to_owned(),
            advice: "allow at least 2 attempts".to_owned(),
        });
    }
    let (least, found) = match jobs.deadline {
        Some(deadline) => (deadline, format!("{}, with a deadline of {deadline}", jobs.retention)),
        // One file holds messages and records, and no message in it outlives a record by itself.
        None if has_embedded_broker => return risks,
        None => (LEAST_RETENTION, format!("{}, without a deadline", jobs.retention)),
    };
    if jobs.retention < least {
        risks.push(Risk {
            severity: Severity::Warning,
            subject: format!("pool {name}"),
            setting: format!("pools.{name}.jobs.retention"),
            found,
            why: "a message that comes again after the record of its job was forgotten is run again".to_owned(),
            advice: format!("set it to at least {least}, or pools.{name}.jobs.deadline to no more than it"),
        });
    }
    risks
}

/// What follows from the longest batch time that a worker of the pool measured.
pub(super) fn of_batch_time(name: &str, pool: &PoolSettings, batch: Duration) -> Option<Risk> {
    let drain_timeout = pool.worker.drain_timeout;
    (batch > drain_timeout.get()).then(|| Risk {
        severity: Severity::Warning,
        subject: format!("pool {name}"),
        setting: format!("pools.{name}.worker.drain_timeout"),
        found: format!("{drain_timeout}, and a batch takes {}", Period::new(rounded(batch))),
        why: "a worker that is told to stop cannot finish its batch: its jobs run again from the start".to_owned(),
        advice: "lower max_batch_items, or allow more time to drain than a batch takes".to_owned(),
    })
}

/// To the millisecond, which is what a period is written with.
fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
