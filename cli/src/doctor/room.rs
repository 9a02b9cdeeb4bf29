//! The room that the records of ended jobs will take, from the rate at which jobs end now.

use std::time::{Duration, Instant};

use queue::{EndRate, Ledger, PoolName, Result, Risk};
use tokio::time::sleep;

use crate::settings::Settings;

/// With fewer ended jobs than this, the rate is too inexact.
const LEAST_ENDED: u64 = 10;

/// The number of jobs of each pool that have ended so far.
pub(super) struct Endings {
    read_at: Instant,
    by_pool: Vec<(PoolName, u64)>,
}

impl Endings {
    /// Reads the numbers of all pools of the configuration.
    pub(super) async fn read(settings: &Settings, ledger: &dyn Ledger) -> Result<Self> {
        let pools: Vec<PoolName> = settings.pools.keys().map(|name| name.parse()).collect::<Result<_>>()?;
        let counts = ledger.counts(&pools).await?;
        let by_pool = pools.into_iter().zip(counts).map(|(pool, counts)| (pool, counts.ended)).collect();
        Ok(Self { read_at: Instant::now(), by_pool })
    }

    /// Whether any job has ended.
    pub(super) fn any(&self) -> bool {
        self.by_pool.iter().any(|(_, ended)| *ended > 0)
    }

    /// Waits until `interval` has passed since the numbers were read.
    pub(super) async fn wait(&self, interval: Duration) {
        sleep(interval.saturating_sub(self.read_at.elapsed())).await;
    }

    /// The rates between two readings. Empty: too few jobs have ended between them.
    fn rates_since(&self, before: &Self, settings: &Settings) -> Vec<EndRate> {
        let seconds = self.read_at.duration_since(before.read_at).as_secs_f64();
        let ended = |((pool, after), (_, before)): (&(PoolName, u64), &(PoolName, u64))| {
            (pool.clone(), after.saturating_sub(*before))
        };
        let ended: Vec<_> = self.by_pool.iter().zip(&before.by_pool).map(ended).collect();
        if ended.iter().map(|(_, count)| count).sum::<u64>() < LEAST_ENDED {
            return Vec::new();
        }
        let rate = |(pool, count): (PoolName, u64)| {
            let retention = settings.pools.get(pool.as_str())?.jobs.retention.get();
            Some(EndRate { pool, per_second: count as f64 / seconds, retention })
        };
        ended.into_iter().filter_map(rate).collect()
    }
}

/// The risk that the records will fill the store of the ledger.
pub(super) async fn risk(
    settings: &Settings,
    ledger: &dyn Ledger,
    before: &Endings,
    after: &Endings,
) -> Result<Option<Risk>> {
    let rates = after.rates_since(before, settings);
    if rates.is_empty() {
        return Ok(None);
    }
    Ok(ledger.usage().await?.and_then(|usage| usage.risk(&rates)))
}

#[cfg(test)]
mod tests {
    use queue::{Body, Claim, ClaimRequest, Class, Clock, Finish, Input, Job, Outcome, Output, Severity, WorkerId};
    use service::{Sources, config};

    use super::*;

    fn settings(url: &str, retention: &str) -> Settings {
        let flags = [format!("broker={url}"), format!("pools.echo.jobs.retention={retention}")];
        let flags = flags.into_iter().chain(["pools.echo.model=echo".to_owned()]).collect();
        config::load(&Sources { flags, ..Sources::default() }).unwrap()
    }

    fn job(number: usize) -> Job {
        Job {
            id: format!("job-{number}").parse().unwrap(),
            pool: "echo".parse().unwrap(),
            class: Class::Standard,
            input: Input { media_type: "x/y".to_owned(), body: Body::Inline("input".into()) },
            created_at: Clock::default().now(),
            deadline_at: None,
            max_attempts: 1,
            retention: Duration::from_secs(3600),
            trace_parent: None,
            origin: None,
        }
    }

    async fn end(ledger: &dyn Ledger, jobs: &[Job]) {
        ledger.submit(jobs).await.unwrap();
        let requests = jobs.iter().map(|job| ClaimRequest::new(job.clone(), false)).collect();
        let claims = ledger.claim(&WorkerId::new("worker"), requests, Duration::from_secs(60)).await.unwrap();
        let finish = |claim| {
            let Claim::Granted { lease, .. } = claim else { panic!("not granted: {claim:?}") };
            let body = Body::Inline(vec![b'o'; 10_000].into());
            Finish { lease, outcome: Outcome::Succeeded(Output { media_type: "x/y".to_owned(), body }) }
        };
        ledger.finish(claims.into_iter().map(finish).collect()).await.unwrap();
    }

    /// The risk after `count` jobs with an output of 10 kB have ended within 10 s.
    async fn found(url: &str, retention: &str, count: usize) -> Option<Risk> {
        let settings = settings(url, retention);
        let ledger = backends::open(&settings.backend_urls().unwrap()).await.unwrap().ledger;
        let before = Endings::read(&settings, &*ledger).await.unwrap();
        end(&*ledger, &(0..count).map(job).collect::<Vec<_>>()).await;
        let mut after = Endings::read(&settings, &*ledger).await.unwrap();
        after.read_at = before.read_at + Duration::from_secs(10);
        risk(&settings, &*ledger, &before, &after).await.unwrap()
    }

    #[tokio::test]
    async fn records_that_will_exceed_the_size_of_the_file_are_a_risk() {
        // 4/s with 10 kB each are 36 MB in a quarter of an hour and 3.5 GB in a day.
        for (retention, count, is_risk) in [("15m", 40, false), ("1d", 40, true), ("1d", 4, false)] {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("embedded:{}?max_size=60000000", folder.path().display());
            let found = found(&url, retention, count).await;
            assert_eq!(found.is_some(), is_risk, "{retention} {count}: {found:?}");
            let Some(risk) = found else { continue };
            assert_eq!((risk.setting.as_str(), risk.severity), ("max_size", Severity::Warning));
            assert!(risk.found.starts_with("4.0 jobs end per second"), "{risk:?}");
            assert!(risk.advice.contains("pools.echo.jobs.retention"), "{risk:?}");
        }
    }
}
