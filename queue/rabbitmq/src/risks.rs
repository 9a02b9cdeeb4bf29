//! The settings of the queues that may lose or delay jobs.

use std::time::Duration;

use lapin::types::ShortString;

use super::link::Link;
use super::queues;
use queue::{ErrorKind, PoolExpectation, Result, Risk, Severity};

/// The server's default. The server closes the channel of a consumer that holds a delivery for longer.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The risks of settings that a client cannot read over AMQP. Each is named with the way to check it by hand.
pub(super) fn unreadable_settings(prefix: &str, named: &[&str], pools: &[PoolExpectation]) -> Vec<Risk> {
    let mut risks = vec![
        Risk {
            severity: Severity::Warning,
            subject: format!("queues {prefix}.*"),
            setting: "delivery-limit".to_owned(),
            found: "not checked: AMQP does not show it".to_owned(),
            why: "with a policy that sets a lower limit than the declaration of these queues, and no \
                  dead-letter-exchange, the server drops a job that was requeued more often"
                .to_owned(),
            advice: "look with rabbitmqctl list_policies; have no policy set it for these queues".to_owned(),
        },
        Risk {
            severity: Severity::Warning,
            subject: format!("queues {prefix}.*"),
            setting: "max-length, message-ttl".to_owned(),
            found: "not checked: AMQP does not show it".to_owned(),
            why: "either setting deletes jobs that wait".to_owned(),
            advice: "look with rabbitmqctl list_policies; leave both unset for these queues".to_owned(),
        },
    ];
    for queue in named {
        risks.push(Risk {
            severity: Severity::Warning,
            subject: format!("queue {queue}"),
            setting: "delivery-limit".to_owned(),
            found: "not checked: AMQP does not show it".to_owned(),
            why: "since RabbitMQ 4 a quorum queue that was declared without it drops a job that was requeued 20 times"
                .to_owned(),
            advice: format!("declare it with x-delivery-limit, or leave it to this program to declare {queue}"),
        });
    }
    for pool in pools {
        let Some(holding) = pool.holding.filter(|holding| *holding * 2 > CONSUMER_TIMEOUT) else { continue };
        risks.push(Risk {
            severity: Severity::Severe,
            subject: format!("pool {}", pool.pool),
            setting: "consumer_timeout".to_owned(),
            found: "30 min unless set: AMQP does not show it".to_owned(),
            why: format!(
                "a worker holds a job for up to {} s; after the timeout the server gives the job to another",
                holding.as_secs()
            ),
            advice: format!("set consumer_timeout to at least {} (milliseconds)", (holding * 4).as_millis()),
        });
    }
    risks
}

/// The risk of a queue whose declaration the server refuses: it was declared with other arguments, or this user may not
/// declare it. A missing queue is not declared.
pub(super) async fn refused_queue(link: &Link, name: &ShortString) -> Result<Option<Risk>> {
    let (_open, channel) = link.channel().await?;
    if queues::message_count(&channel, name.clone()).await?.is_none() {
        return Ok(None);
    }
    let found = match queues::declare_named(&channel, name).await {
        Ok(()) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::Denied => error.to_string(),
        Err(error) => return Err(error),
    };
    Ok(Some(Risk {
        severity: Severity::Severe,
        subject: format!("queue {name}"),
        setting: "arguments".to_owned(),
        found,
        why: "submissions of its class are answered with 503, and the pool's workers receive nothing".to_owned(),
        advice: "delete the queue once it is empty: it is declared again; or set another prefix".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_take_half_the_consumer_timeout_are_named() {
        let pool = |minutes: u64| PoolExpectation {
            pool: "resnet50".parse().unwrap(),
            max_workers: 1,
            deadline: None,
            holding: Some(Duration::from_secs(minutes * 60)),
        };
        let settings = |minutes| {
            unreadable_settings("millrace", &[], &[pool(minutes)])
                .into_iter()
                .filter(|risk| risk.severity == Severity::Severe)
                .count()
        };
        assert_eq!((settings(15), settings(16)), (0, 1));
    }
}
