//! The settings of the topics and the servers that may lose, delay or repeat jobs.
//!
//! The difference between the servers' clocks and ours is not checked. It influences when `retention.ms` is over and
//! the reported age of jobs. But no reply of Kafka contains the server's time. A record's timestamp is that of its
//! producer, or with `message.timestamp.type=LogAppendTime` that of its publication. This check publishes nothing.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tokio::runtime::Runtime;

use super::cluster::{ALL_CLIENTS, CALL_TIMEOUT, Cluster, call_error};
use super::context::Context;
use super::error::failed;
use queue::{Error, ErrorKind, PoolExpectation, Result, Risk, Severity};

/// The largest input that travels with its job must fit, with its headers.
const MESSAGE_BYTES: i64 = 320 * 1024;

/// How long the servers keep the offsets of a group without members by default (`offsets.retention.minutes`).
const OFFSETS_KEPT_MINUTES: i64 = 7 * 24 * 60;

/// The jobs of a killed worker must be delivered again within this time.
const LONGEST_SESSION_MS: i64 = 10_000;

/// The risks of the topics that exist. A missing topic is created when it is needed, so it is no risk. Blocks.
pub(super) fn of(cluster: &Cluster, pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
    let reader = SettingsReader::new(cluster)?;
    let mut offsets_kept_minutes = None;
    let mut risks = Vec::new();
    for pool in pools {
        if cluster.url.property("group.protocol") == Some("consumer") {
            let group = cluster.url.group(&pool.pool);
            let found = reader.settings(&ResourceSpecifier::Group(&group), &format!("the group {group}"));
            risks.extend(optional(found)?.and_then(|found| long_session(&group, number(&found, SESSION)?)));
        }
        for (topic, _) in cluster.topics(&pool.pool) {
            let partitions = cluster.partition_count(&topic)?;
            if partitions == 0 {
                continue;
            }
            let offsets_kept_minutes = match offsets_kept_minutes {
                Some(known) => known,
                None => *offsets_kept_minutes.insert(reader.offsets_kept_minutes(cluster, &topic)?),
            };
            risks.extend(idle_workers(&topic, partitions, pool.max_workers));
            let settings = reader.settings(&ResourceSpecifier::Topic(&topic), &format!("the topic {topic}"))?;
            let of = |name: &str| settings.get(name).and_then(|entry| entry.value.clone());
            risks.extend(of_settings(&topic, pool.deadline, offsets_kept_minutes, of));
        }
    }
    Ok(risks)
}

/// Reads settings from the servers.
struct SettingsReader {
    admin: AdminClient<Context>,
    runtime: Runtime,
}

impl SettingsReader {
    fn new(cluster: &Cluster) -> Result<Self> {
        let action = "look up settings";
        let mut config: ClientConfig = cluster.url.config(&ALL_CLIENTS);
        // The client that reads topics reports the same errors, so this one logs nothing.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let admin = config.create_with_context(Context::default()).map_err(|error| failed(action, error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime =
            runtime.map_err(|error| Error::caused(ErrorKind::Unavailable, format_args!("cannot {action}"), error))?;
        Ok(Self { admin, runtime })
    }

    fn settings(&self, resource: &ResourceSpecifier<'_>, name: &str) -> Result<ConfigResource> {
        let action = format!("look up the settings of {name}");
        let looking = |error| failed(&action, error);
        let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT));
        let found = self.runtime.block_on(self.admin.describe_configs([resource], &options)).map_err(looking)?;
        let found = found.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format_args!("cannot {action}: the server returned no settings"))
        })?;
        found.map_err(|code| looking(KafkaError::AdminOp(code)))
    }

    /// The setting of one server. All servers of a cluster should have the same.
    fn offsets_kept_minutes(&self, cluster: &Cluster, topic: &str) -> Result<i64> {
        let client = cluster.client()?;
        let metadata = client.fetch_metadata(Some(topic), CALL_TIMEOUT);
        let metadata = metadata.map_err(|error| call_error(&client, "look up the servers", error))?;
        let Some(server) = metadata.brokers().first() else { return Ok(OFFSETS_KEPT_MINUTES) };
        let name = format!("the server {} ({}:{})", server.id(), server.host(), server.port());
        let found = optional(self.settings(&ResourceSpecifier::Broker(server.id()), &name))?;
        Ok(found.and_then(|found| number(&found, "offsets.retention.minutes")).unwrap_or(OFFSETS_KEPT_MINUTES))
    }
}

/// `None`: this user may not read the settings, or the server is too old.
fn optional(settings: Result<ConfigResource>) -> Result<Option<ConfigResource>> {
    match settings {
        Ok(settings) => Ok(Some(settings)),
        Err(error) if error.kind() == ErrorKind::Denied => {
            tracing::warn!(%error, "cannot check these settings; assuming the defaults");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn number(settings: &ConfigResource, name: &str) -> Option<i64> {
    settings.get(name)?.value.as_ref()?.parse().ok()
}

/// A group's own setting. Without it, the servers' `group.consumer.session.timeout.ms` holds.
const SESSION: &str = "consumer.session.timeout.ms";

fn long_session(group: &str, session_ms: i64) -> Option<Risk> {
    (session_ms > LONGEST_SESSION_MS).then(|| Risk {
        severity: Severity::Warning,
        subject: group.to_owned(),
        setting: SESSION.to_owned(),
        found: session_ms.to_string(),
        why: "the jobs of a killed worker are delivered again only after that time".to_owned(),
        advice: "set group.consumer.session.timeout.ms and group.consumer.min.session.timeout.ms of the servers to \
                 6000, or leave group.protocol out of the URL"
            .to_owned(),
    })
}

fn idle_workers(topic: &str, partitions: i32, max_workers: u32) -> Option<Risk> {
    (i64::from(partitions) < i64::from(max_workers)).then(|| Risk {
        severity: Severity::Warning,
        subject: topic.to_owned(),
        setting: "partitions".to_owned(),
        found: partitions.to_string(),
        why: format!("a partition has one consumer: of {max_workers} workers at most {partitions} get jobs"),
        advice: format!("give the topic {max_workers} partitions, or the pool a maximum of {partitions} workers"),
    })
}

/// The risks of a topic's settings; `of` returns their values.
fn of_settings(
    topic: &str,
    deadline: Option<Duration>,
    offsets_kept_minutes: i64,
    of: impl Fn(&str) -> Option<String>,
) -> Vec<Risk> {
    let mut risks = Vec::new();
    let mut add = |severity, setting: &str, found: String, why: &str, advice: &str| {
        let (subject, setting) = (topic.to_owned(), setting.to_owned());
        risks.push(Risk { severity, subject, setting, found, why: why.to_owned(), advice: advice.to_owned() });
    };
    let number = |name: &str| of(name).and_then(|value| value.parse::<i64>().ok());
    if of("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        let why = "all messages with the same key but the last are deleted, whether or not they were read";
        add(Severity::Severe, "cleanup.policy", "compact".to_owned(), why, "set cleanup.policy=delete");
    }
    let retention = number("retention.ms");
    let offsets_kept = offsets_kept_minutes.saturating_mul(60_000);
    if let Some(kept) = retention.filter(|kept| *kept < 0 || *kept > offsets_kept) {
        let why = format!(
            "{offsets_kept_minutes} minutes after the pool has gone to zero workers the servers forget which jobs are \
             done (offsets.retention.minutes), and all jobs that are still in the topic run again"
        );
        let advice = format!(
            "set it to at most {offsets_kept}, or, if jobs wait longer, raise offsets.retention.minutes of the servers \
             to the same time"
        );
        add(Severity::Severe, "retention.ms", kept.to_string(), &why, &advice);
    }
    match retention.filter(|kept| *kept >= 0) {
        Some(kept) if deadline.is_some_and(|deadline| i128::from(kept) < deadline.as_millis() as i128) => {
            let why = "a job that waits longer is deleted unread before its deadline";
            add(Severity::Severe, "retention.ms", kept.to_string(), why, "set it above the pool's deadline");
        }
        Some(kept) if deadline.is_none() => {
            let why = "a job that waits longer is deleted unread, and the pool's jobs have no deadline";
            add(Severity::Warning, "retention.ms", kept.to_string(), why, "give the pool a deadline that is shorter");
        }
        _ => {}
    }
    if let Some(bytes) = number("retention.bytes").filter(|bytes| *bytes >= 0) {
        let why = "jobs that wait beyond that size are deleted unread";
        add(Severity::Severe, "retention.bytes", bytes.to_string(), why, "set retention.bytes=-1");
    }
    if let Some(replicas) = number("min.insync.replicas").filter(|replicas| *replicas < 2) {
        let why = "a confirmed job may be on a single server, and is lost with its disk";
        let advice = "run three replicas with min.insync.replicas=2";
        add(Severity::Warning, "min.insync.replicas", replicas.to_string(), why, advice);
    }
    if of("unclean.leader.election.enable").as_deref() == Some("true") {
        let why = "a server that lacks confirmed jobs may become the leader, and these are lost";
        add(Severity::Severe, "unclean.leader.election.enable", "true".to_owned(), why, "set it to false");
    }
    if let Some(bytes) = number("max.message.bytes").filter(|bytes| *bytes < MESSAGE_BYTES) {
        let why = "an input that travels with its job may not fit: the submission is refused";
        add(
            Severity::Severe,
            "max.message.bytes",
            bytes.to_string(),
            why,
            "set it above blobs.inline_limit and its headers",
        );
    }
    risks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(deadline: Option<u64>, settings: &[(&str, &str)]) -> Vec<(Severity, String)> {
        let of = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let risks = of_settings("topic", deadline.map(Duration::from_secs), OFFSETS_KEPT_MINUTES, of);
        risks.into_iter().map(|risk| (risk.severity, risk.setting)).collect()
    }

    #[test]
    fn a_sound_topic_has_no_risks() {
        let sound = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("max.message.bytes", "1048588"),
        ];
        assert_eq!(found(Some(3600), &sound), []);
    }

    #[test]
    fn each_setting_that_deletes_jobs_is_named() {
        use Severity::{Severe, Warning};
        for (deadline, setting, value, severity) in [
            (None, "cleanup.policy", "compact,delete", Severe),
            (Some(3600), "retention.ms", "1000", Severe),
            (Some(3600), "retention.ms", "-1", Severe),
            (None, "retention.ms", "-1", Severe),
            (Some(3600), "retention.ms", "604800001", Severe),
            (None, "retention.ms", "604800000", Warning),
            (None, "retention.bytes", "1000", Severe),
            (None, "min.insync.replicas", "1", Warning),
            (None, "unclean.leader.election.enable", "true", Severe),
            (None, "max.message.bytes", "100000", Severe),
        ] {
            assert_eq!(found(deadline, &[(setting, value)]), [(severity, setting.to_owned())]);
        }
    }

    #[test]
    fn topics_that_keep_jobs_longer_than_the_servers_keep_offsets_are_named() {
        let of = |name: &str| (name == "retention.ms").then(|| "86400001".to_owned());
        let risks = of_settings("topic", Some(Duration::from_secs(60)), 24 * 60, of);
        let [risk] = &risks[..] else { panic!("{risks:?}") };
        assert_eq!(risk.severity, Severity::Severe);
        assert!(risk.why.starts_with("1440 minutes after") && risk.advice.contains("at most 86400000"), "{risk:?}");
    }

    #[test]
    fn a_session_timeout_above_the_promised_redelivery_time_is_named() {
        assert_eq!(long_session("group", 10_000), None);
        assert!(long_session("group", 45_000).is_some_and(|risk| risk.found == "45000"));
    }

    #[test]
    fn workers_beyond_the_partitions_are_named() {
        assert_eq!(idle_workers("topic", 12, 12), None);
        assert!(idle_workers("topic", 12, 13).is_some_and(|risk| risk.advice.contains("13 partitions")));
    }
}
