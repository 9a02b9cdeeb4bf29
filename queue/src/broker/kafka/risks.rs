//! What about the topics, as they are set up, may lose or delay jobs.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::RDKafkaLogLevel;

use super::cluster::{ALL_CLIENTS, CALL_TIMEOUT, Cluster};
use super::context::Context;
use super::error::failed;
use crate::{Class, Error, ErrorKind, PoolExpectation, Result, Risk, Severity};

/// An input up to the limit for what travels with a job, and its headers, must fit.
const MESSAGE_BYTES: i64 = 320 * 1024;

/// The risks of the topics that are there; one that is missing is created when it is needed. Blocks.
pub(super) fn of(cluster: &Cluster, pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
    let mut risks = Vec::new();
    for pool in pools {
        for class in Class::ALL {
            let topic = cluster.url.topic(&pool.pool, class);
            let partitions = cluster.partition_count(&topic)?;
            if partitions == 0 {
                continue;
            }
            risks.extend(idle_workers(&topic, partitions, pool.max_workers));
            let settings = settings(cluster, &topic)?;
            let of = |name: &str| settings.get(name).and_then(|entry| entry.value.clone());
            risks.extend(of_settings(&topic, pool.deadline, of));
        }
    }
    Ok(risks)
}

fn settings(cluster: &Cluster, topic: &str) -> Result<ConfigResource> {
    let action = format!("look up the settings of the topic {topic}");
    let looking = |error| failed(&action, error);
    let mut config: ClientConfig = cluster.url.config(&ALL_CLIENTS);
    // Nobody listens to this client: what it would say the one for questions says.
    config.set_log_level(RDKafkaLogLevel::Emerg);
    let admin: AdminClient<Context> = config.create_with_context(Context::default()).map_err(looking)?;
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime =
        runtime.map_err(|error| Error::caused(ErrorKind::Unavailable, format_args!("cannot {action}"), error))?;
    let found =
        runtime.block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options)).map_err(looking)?;
    let found = found.into_iter().next().ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, format_args!("cannot {action}: the server said nothing of it"))
    })?;
    found.map_err(|code| looking(rdkafka::error::KafkaError::AdminOp(code)))
}

fn idle_workers(topic: &str, partitions: i32, max_workers: u32) -> Option<Risk> {
    (i64::from(partitions) < i64::from(max_workers)).then(|| Risk {
        severity: Severity::Warning,
        subject: topic.to_owned(),
        setting: "partitions".to_owned(),
        found: partitions.to_string(),
        why: format!("a partition has one consumer: of {max_workers} workers no more than {partitions} can work"),
        advice: format!("give the topic {max_workers} partitions, or the pool a maximum of {partitions} workers"),
    })
}

/// The risks of a topic's settings, of which `of` gives the values.
fn of_settings(topic: &str, deadline: Option<Duration>, of: impl Fn(&str) -> Option<String>) -> Vec<Risk> {
    let mut risks = Vec::new();
    let mut add = |severity, setting: &str, found: String, why: &str, advice: &str| {
        let (subject, setting) = (topic.to_owned(), setting.to_owned());
        risks.push(Risk { severity, subject, setting, found, why: why.to_owned(), advice: advice.to_owned() });
    };
    let number = |name: &str| of(name).and_then(|value| value.parse::<i64>().ok());
    if of("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        let why = "of messages with the same key all but the last are dropped, read or not";
        add(Severity::Severe, "cleanup.policy", "compact".to_owned(), why, "set cleanup.policy=delete");
    }
    match number("retention.ms").filter(|kept| *kept >= 0) {
        Some(kept) if deadline.is_some_and(|deadline| i128::from(kept) < deadline.as_millis() as i128) => {
            let why = "a job that waits longer is deleted unread before its deadline";
            add(Severity::Severe, "retention.ms", kept.to_string(), why, "set it above the pool's deadline, or to -1");
        }
        Some(kept) if deadline.is_none() => {
            let why = "a job that waits longer is deleted unread, and the pool's jobs have no deadline";
            add(Severity::Warning, "retention.ms", kept.to_string(), why, "give the pool a deadline, or set it to -1");
        }
        _ => {}
    }
    if let Some(bytes) = number("retention.bytes").filter(|bytes| *bytes >= 0) {
        let why = "what waits beyond that size is deleted unread";
        add(Severity::Severe, "retention.bytes", bytes.to_string(), why, "set retention.bytes=-1");
    }
    if let Some(replicas) = number("min.insync.replicas").filter(|replicas| *replicas < 2) {
        let why = "a confirmed job may be on one server alone, and is lost with its disk";
        let advice = "run three replicas with min.insync.replicas=2";
        add(Severity::Warning, "min.insync.replicas", replicas.to_string(), why, advice);
    }
    if of("unclean.leader.election.enable").as_deref() == Some("true") {
        let why = "a server that missed confirmed jobs may become the leader: they are lost";
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
        let risks = of_settings("topic", deadline.map(Duration::from_secs), of);
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
    fn workers_beyond_the_partitions_are_named() {
        assert_eq!(idle_workers("topic", 12, 12), None);
        assert!(idle_workers("topic", 12, 13).is_some_and(|risk| risk.advice.contains("13 partitions")));
    }
}
