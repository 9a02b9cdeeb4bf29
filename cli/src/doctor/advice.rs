//! Risks that follow from the configuration alone, or from it and a measured batch time.

use std::time::Duration;

use backends::{BackendUrl, BackendUrls};
use policy::{Mode, Scaling};
use queue::{Risk, Severity};
use service::Period;

use crate::settings::{PoolSettings, Settings};

/// The smallest safe retention of jobs without a deadline. A broker that is down for up to a day delivers their messages
/// when it is back; the records must still exist then.
const MIN_RETENTION: Period = Period::seconds(24 * 3600);

/// The risks that are visible without a call to a server.
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
                why: "each machine has its own ledger, so jobs may run twice".to_owned(),
                advice: "run all processes on one machine, or use Redis as the ledger".to_owned(),
            });
        }
        if settings.blobs.url.is_none()
            && let Some(folder) = &settings.blobs.folder
        {
            risks.push(Risk {
                severity: Severity::Warning,
                subject: "blobs".to_owned(),
                setting: "blobs.folder".to_owned(),
                found: folder.display().to_string(),
                why: format!(
                    "inputs above {} are files that other machines must be able to read",
                    settings.blobs.inline_limit
                ),
                advice: "make sure that gateway and workers share this folder, or name a bucket in blobs.url"
                    .to_owned(),
            });
        }
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
            why: "a job is dead as soon as its worker is stopped or lost".to_owned(),
            advice: "allow at least 2 attempts".to_owned(),
        });
    }
    let (minimum, found) = match jobs.deadline {
        Some(deadline) => (deadline, format!("{}, with a deadline of {deadline}", jobs.retention)),
        // Messages and records are in one file, so no message outlives its record.
        None if has_embedded_broker => return risks,
        None => (MIN_RETENTION, format!("{}, without a deadline", jobs.retention)),
    };
    if jobs.retention < minimum {
        risks.push(Risk {
            severity: Severity::Warning,
            subject: format!("pool {name}"),
            setting: format!("pools.{name}.jobs.retention"),
            found,
            why: "a message that is redelivered after the record of its job was deleted runs again".to_owned(),
            advice: format!("set it to at least {minimum}, or set pools.{name}.jobs.deadline to at most this value"),
        });
    }
    risks
}

/// The risk of a blob store with the id `found`, if the one with the id `recorded` belongs to the ledger.
pub(super) fn of_blob_store(settings: &Settings, found: &str, recorded: &str) -> Option<Risk> {
    let (setting, place) = settings.blobs.place();
    (found != recorded).then(|| Risk {
        severity: Severity::Severe,
        subject: "blobs".to_owned(),
        setting: setting.to_owned(),
        found: format!("{place}, with the id {found}"),
        why: format!("the blob store of the ledger has the id {recorded}, so gateway and workers do not start here"),
        advice: "make sure that gateway and workers use one store".to_owned(),
    })
}

/// The risk that follows from the longest batch time that a worker of the pool measured.
pub(super) fn of_batch_time(name: &str, pool: &PoolSettings, batch: Duration) -> Option<Risk> {
    let drain_timeout = pool.worker.drain_timeout;
    (batch > drain_timeout.get()).then(|| Risk {
        severity: Severity::Warning,
        subject: format!("pool {name}"),
        setting: format!("pools.{name}.worker.drain_timeout"),
        found: format!("{drain_timeout}, and a batch takes {}", Period::new(rounded(batch))),
        why: "a worker that stops cannot finish its batch, so its jobs run again from the start".to_owned(),
        advice: "lower max_batch_items, or set drain_timeout above the batch time".to_owned(),
    })
}

/// The risk that a promised latency cannot be kept from zero workers, because a worker took `cold_start` until it was ready.
pub(super) fn of_cold_start(name: &str, pool: &PoolSettings, cold_start: Duration) -> Option<Risk> {
    let scaling = Scaling::of_metadata(&pool.scale.trigger).ok()?;
    let Mode::Latency(latency) = scaling.mode else { return None };
    let objective = latency.objective();
    let may_be_empty = scaling.min == 0 && pool.scale.min == 0;
    (may_be_empty && cold_start > objective).then(|| Risk {
        severity: Severity::Warning,
        subject: format!("pool {name}"),
        setting: format!("pools.{name}.scale.trigger.latency"),
        found: format!("{}, and a cold start takes {}", Period::new(objective), Period::new(rounded(cold_start))),
        why: "a job that finds no worker is late; if jobs come rarely, these are more than the promise allows"
            .to_owned(),
        advice: format!("set pools.{name}.scale.trigger.minWorkers to at least 1, or promise a longer latency"),
    })
}

/// The time is rounded down to the millisecond.
fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
