//! Settings of a broker or ledger that may lose or delay jobs, and the room of the records of a ledger.

use std::fmt;
use std::time::Duration;

use crate::PoolName;

/// How severe a risk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It may delay jobs, or needs more than one failure to do harm.
    Warning,
    /// Jobs may be lost, stuck or repeated without end.
    Severe,
}

impl Severity {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Severe => "severe",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One risk and the setting that causes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    /// How severe it is.
    pub severity: Severity,
    /// The queue, topic, server or folder at risk. Never a password.
    pub subject: String,
    /// The setting that causes it, by its name in the server or system, such as `consumer_timeout`.
    pub setting: String,
    /// Its current value.
    pub found: String,
    /// The possible consequence.
    pub why: String,
    /// The remedy.
    pub advice: String,
}

/// The demands of a pool on its broker, from its configuration and measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolExpectation {
    /// The pool.
    pub pool: PoolName,
    /// The most workers it may have at once.
    pub max_workers: u32,
    /// The longest time that a job may wait for its start. `None`: the configuration has no limit.
    pub deadline: Option<Duration>,
    /// The longest time for which a worker should hold an unsettled delivery, according to the measured batch times.
    /// `None`: there are no measurements yet.
    pub holding: Option<Duration>,
}

/// The room that the records of a ledger take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The server or file that holds the records.
    pub subject: String,
    /// The setting that limits it, by its name in the server or system.
    pub setting: String,
    /// What `capacity_bytes` is, such as `maxmemory`.
    pub limit: String,
    /// The most bytes that it may hold.
    pub capacity_bytes: u64,
    /// The mean size of the record of an ended job, with its input, output and history. What is in the blob store does
    /// not count.
    pub record_bytes: u64,
}

/// The jobs of a pool that end.
#[derive(Debug, Clone, PartialEq)]
pub struct EndRate {
    /// The pool.
    pub pool: PoolName,
    /// The jobs that end per second.
    pub per_second: f64,
    /// How long their records are kept.
    pub retention: Duration,
}

impl Usage {
    /// The share of the capacity above which the records of ended jobs are a risk. The rest is for open jobs and for bursts.
    const SAFE_SHARE: f64 = 0.8;

    /// The risk that the records fill the store, if jobs go on ending at these rates. In the steady state, a pool has
    /// `rate × retention` records.
    pub fn risk(&self, rates: &[EndRate]) -> Option<Risk> {
        let bytes_of = |rate: &EndRate| rate.per_second * rate.retention.as_secs_f64() * self.record_bytes as f64;
        let bytes: f64 = rates.iter().map(bytes_of).sum();
        if bytes <= self.capacity_bytes as f64 * Self::SAFE_SHARE {
            return None;
        }
        let per_second: f64 = rates.iter().map(|rate| rate.per_second).sum();
        let largest = rates.iter().max_by(|one, other| bytes_of(one).total_cmp(&bytes_of(other)))?;
        let safe = largest.retention.mul_f64(Self::SAFE_SHARE * self.capacity_bytes as f64 / bytes);
        Some(Risk {
            severity: Severity::Warning,
            subject: self.subject.clone(),
            setting: self.setting.clone(),
            found: format!(
                "{per_second:.1} jobs end per second, and a record has {}: the retention holds {} of {} ({})",
                shown(self.record_bytes as f64),
                shown(bytes),
                shown(self.capacity_bytes as f64),
                self.limit
            ),
            why: "when the store is full, submissions are rejected until records are deleted".to_owned(),
            advice: format!(
                "shorten pools.{pool}.jobs.retention, which holds {share}, for example to {safe} s; or raise {setting}; or \
                 move large outputs to the blob store with a smaller blobs.inline_limit",
                pool = largest.pool,
                share = shown(bytes_of(largest)),
                safe = safe.as_secs(),
                setting = self.setting,
            ),
        })
    }
}

/// A number of bytes with two or three significant digits.
fn shown(bytes: f64) -> String {
    let (size, unit) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find_map(|(power, unit)| Some((bytes / 2_f64.powi(power), unit)).filter(|(size, _)| *size >= 1.0))
        .unwrap_or((bytes, "B"));
    if size < 10.0 && unit != "B" { format!("{size:.1} {unit}") } else { format!("{size:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(capacity_bytes: u64) -> Usage {
        Usage {
            subject: "redis".to_owned(),
            setting: "maxmemory".to_owned(),
            limit: "maxmemory".to_owned(),
            capacity_bytes,
            record_bytes: 2048,
        }
    }

    fn rate(pool: &str, per_second: f64, hours: u64) -> EndRate {
        EndRate { pool: pool.parse().unwrap(), per_second, retention: Duration::from_secs(hours * 3600) }
    }

    #[test]
    fn records_that_will_fill_the_store_are_a_risk_with_figures_and_a_way_out() {
        // 10/s for a day and 20/s for an hour are 936,000 records of 2 KiB.
        let rates = [rate("often", 20.0, 1), rate("long", 10.0, 24)];
        let bytes = 936_000 * 2048;
        assert_eq!(usage(bytes * 10 / 8).risk(&rates), None);
        let risk = usage(bytes).risk(&rates).unwrap();
        assert_eq!(
            risk.found,
            "30.0 jobs end per second, and a record has 2.0 KiB: the retention holds 1.8 GiB of 1.8 GiB (maxmemory)"
        );
        // 80 % of a day.
        for part in ["pools.long.jobs.retention", "1.6 GiB", "69120 s", "raise maxmemory"] {
            assert!(risk.advice.contains(part), "{part}: {}", risk.advice);
        }
        assert_eq!(usage(bytes).risk(&[]), None);
    }

    #[test]
    fn bytes_are_shown_with_a_unit() {
        let texts = [0.0, 1023.0, 1024.0, 10_500.0, 3e9, 4e13].map(shown);
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "10 KiB", "2.8 GiB", "36 TiB"]);
    }
}
