//! Settings and conditions of a server that may lose or delay jobs.
//!
//! Settings that lose jobs for certain are not listed here. A server that evicts keys, is a replica or is too old is
//! rejected when a connection is made.

use std::collections::HashMap;

use ::redis::cmd;

use super::Redis;
use super::server::name;
use queue::{ErrorKind, Result, Risk, Severity};

/// Above this share of `maxmemory`, memory may soon be full.
const FULL_PERCENT: u64 = 80;

/// The drift between the server's clock and ours that makes deadlines inexact, and the drift that breaks leases.
const DRIFT_MILLISECONDS: u64 = 1_000;
const SEVERE_DRIFT_MILLISECONDS: u64 = 30_000;

impl Redis {
    /// The name of the connected server in reports.
    pub(crate) async fn subject(&self) -> Result<String> {
        Ok(format!("redis {}", name(&self.server().await?.client)))
    }

    /// The risks of the connected server. Changes nothing.
    pub(crate) async fn risks(&self) -> Result<Vec<Risk>> {
        let subject = self.subject().await?;
        let info: String = self.run("read INFO", &cmd("INFO")).await?;
        let before = self.clock().now_milliseconds();
        let (seconds, microseconds): (i64, i64) = self.run("read TIME", &cmd("TIME")).await?;
        // The server read its clock between our two readings.
        let ours = i64::midpoint(before, self.clock().now_milliseconds());
        let theirs = seconds * 1_000 + microseconds / 1_000 + self.clock().offset_milliseconds();
        let mut get_settings = cmd("CONFIG");
        get_settings.arg("GET").arg("appendfsync").arg("save");
        let settings = match self.run::<HashMap<String, String>>("read CONFIG", &get_settings).await {
            Ok(settings) => Some(settings),
            // Many hosted servers forbid it.
            Err(error) if error.kind() == ErrorKind::Denied => {
                tracing::debug!(%error, "cannot read the settings of redis");
                None
            }
            Err(error) => return Err(error),
        };
        let readings =
            Readings { subject, info: &info, settings: settings.as_ref(), drift_milliseconds: theirs - ours };
        Ok(readings.risks())
    }
}

/// The facts that the risks are judged by.
struct Readings<'a> {
    subject: String,
    info: &'a str,
    /// `None`: the server forbids reading them.
    settings: Option<&'a HashMap<String, String>>,
    /// How far the server's clock is ahead of ours.
    drift_milliseconds: i64,
}

impl Readings<'_> {
    fn risks(&self) -> Vec<Risk> {
        let persistence = if self.info("aof_enabled") == Some("1") { self.log_sync() } else { self.no_log() };
        let statuses = ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"];
        let failing = statuses.into_iter().filter_map(|status| self.failing(status));
        persistence.into_iter().chain(failing).chain(self.memory()).chain(self.drift()).collect()
    }

    fn info(&self, key: &str) -> Option<&str> {
        self.info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
    }

    fn risk(&self, severity: Severity, setting: &str, found: impl Into<String>, why: &str, advice: &str) -> Risk {
        Risk {
            severity,
            subject: self.subject.clone(),
            setting: setting.to_owned(),
            found: found.into(),
            why: why.to_owned(),
            advice: advice.to_owned(),
        }
    }

    fn log_sync(&self) -> Option<Risk> {
        let Some(settings) = self.settings else {
            let why = "CONFIG GET is forbidden here; with any value but always, a power failure loses the last writes";
            let advice = "check appendfsync in the configuration of this server";
            return Some(self.risk(Severity::Warning, "appendfsync", "not checked", why, advice));
        };
        let (found, why) = match settings.get("appendfsync").map(String::as_str) {
            Some("always") => return None,
            Some("no") => ("no", "a power failure loses about the last 30 s of jobs and results"),
            _ => ("everysec", "a power failure loses up to the last second of jobs and results"),
        };
        let advice = "set appendfsync always, or accept that loss for the speed";
        Some(self.risk(Severity::Warning, "appendfsync", found, why, advice))
    }

    fn no_log(&self) -> Option<Risk> {
        let snapshots = self.settings.and_then(|settings| settings.get("save"));
        let (severity, why) = match snapshots.map(String::as_str) {
            Some("") => (Severity::Severe, "nothing is written to disk: a restart of the server loses every job"),
            _ => (Severity::Warning, "a restart of the server loses all writes since the last snapshot"),
        };
        Some(self.risk(severity, "appendonly", "no", why, "set appendonly yes"))
    }

    fn failing(&self, status: &str) -> Option<Risk> {
        let found = self.info(status).filter(|found| *found != "ok")?;
        let why = "the server cannot write to its disk: it rejects jobs, or a restart loses the jobs it has";
        Some(self.risk(Severity::Severe, status, found, why, "read the server's log and free space on its disk"))
    }

    fn memory(&self) -> Option<Risk> {
        let number = |key| self.info(key).and_then(|text| text.parse::<u64>().ok());
        let (used, most) = (number("used_memory")?, number("maxmemory").filter(|most| *most > 0)?);
        let percent = used.saturating_mul(100) / most;
        let found = format!("{percent} % of {most} bytes used");
        let why = "when memory is full, no jobs are accepted until others have ended and been deleted";
        let advice = "raise maxmemory, or shorten the retention of the pools";
        (percent > FULL_PERCENT).then(|| self.risk(Severity::Warning, "maxmemory", found, why, advice))
    }

    fn drift(&self) -> Option<Risk> {
        let drift = self.drift_milliseconds.unsigned_abs();
        if drift <= DRIFT_MILLISECONDS {
            return None;
        }
        let severity = if drift <= SEVERE_DRIFT_MILLISECONDS { Severity::Warning } else { Severity::Severe };
        let found = format!("{} ms ahead of this machine", self.drift_milliseconds);
        let why = "leases and retries use the server's clock, deadlines the clock of the client that submits";
        let advice = "synchronize the clocks of all machines, with NTP for example";
        let subject = format!("clock of {}", self.subject);
        Some(Risk { subject, ..self.risk(severity, "TIME", found, why, advice) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE: &str = "used_memory:80\r\nmaxmemory:100\r\naof_enabled:1\r\naof_last_write_status:ok\r\n\
                        aof_last_bgrewrite_status:ok\r\nrdb_last_bgsave_status:ok\r\n";

    fn found(info: &str, settings: Option<[&str; 2]>, drift_milliseconds: i64) -> Vec<(Severity, String, String)> {
        let settings = settings.map(|[appendfsync, save]| {
            let settings = [("appendfsync", appendfsync), ("save", save)];
            settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        });
        let readings = Readings { subject: "redis".to_owned(), info, settings: settings.as_ref(), drift_milliseconds };
        readings.risks().into_iter().map(|risk| (risk.severity, risk.setting, risk.found)).collect()
    }

    #[test]
    fn a_server_with_safe_settings_has_no_risk() {
        assert_eq!(found(SAFE, Some(["always", ""]), -1_000), []);
        assert_eq!(found(&SAFE.replace("maxmemory:100", "maxmemory:0"), Some(["always", ""]), 0), []);
    }

    #[test]
    fn each_risk_is_named_with_its_setting() {
        use Severity::{Severe, Warning};
        let unlogged = SAFE.replace("aof_enabled:1", "aof_enabled:0");
        let failing = SAFE.replace("aof_last_write_status:ok", "aof_last_write_status:err");
        let full = SAFE.replace("used_memory:80", "used_memory:81");
        let always = Some(["always", ""]);
        for (risks, severity, setting, value) in [
            (found(SAFE, Some(["everysec", ""]), 0), Warning, "appendfsync", "everysec"),
            (found(SAFE, Some(["no", ""]), 0), Warning, "appendfsync", "no"),
            (found(SAFE, None, 0), Warning, "appendfsync", "not checked"),
            (found(&unlogged, Some(["everysec", "3600 1"]), 0), Warning, "appendonly", "no"),
            (found(&unlogged, Some(["everysec", ""]), 0), Severe, "appendonly", "no"),
            (found(&unlogged, None, 0), Warning, "appendonly", "no"),
            (found(&failing, always, 0), Severe, "aof_last_write_status", "err"),
            (found(&full, always, 0), Warning, "maxmemory", "81 % of 100 bytes used"),
            (found(SAFE, always, -1_001), Warning, "TIME", "-1001 ms ahead of this machine"),
            (found(SAFE, always, 30_001), Severe, "TIME", "30001 ms ahead of this machine"),
        ] {
            assert_eq!(risks, [(severity, setting.to_owned(), value.to_owned())]);
        }
    }
}
