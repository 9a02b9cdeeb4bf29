//! The pools that may have work. Each stream has its own subscription, because most processes never need one.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::channel::{self, ChannelEvent, SubscriptionState};
use crate::connection::Redis;
use queue::{Error, ErrorKind, PoolName, Result};

/// The channel to which the scripts publish arrivals.
const CHANNEL: &str = "arrived";

struct Arrivals {
    unread: Mutex<Unread>,
    has_unread: Notify,
    subscription: SubscriptionState,
}

/// The items that the stream has not returned yet.
#[derive(Default)]
struct Unread {
    lost: Option<String>,
    pools: BTreeSet<PoolName>,
}

/// Follows the arrivals that any process publishes, from when this returns.
pub(super) async fn follow(redis: &Redis) -> Result<BoxStream<'static, Result<PoolName>>> {
    let arrivals = Arc::new(Arrivals {
        unread: Mutex::default(),
        has_unread: Notify::new(),
        subscription: SubscriptionState::new(),
    });
    let receiving = Arc::clone(&arrivals);
    let following = tokio::spawn(channel::follow(redis.clone(), CHANNEL, move |event| receiving.handle(event)));
    let following = AbortOnDropHandle::new(following);
    arrivals.subscription.wait(CHANNEL).await?;
    let items = stream::unfold((arrivals, following), async |(arrivals, following)| {
        Some((arrivals.next().await, (arrivals, following)))
    });
    Ok(items.boxed())
}

impl Arrivals {
    fn handle(&self, event: ChannelEvent<'_>) {
        match event {
            ChannelEvent::Subscribed => drop(self.subscription.set(Ok(()))),
            ChannelEvent::Names(pools) => {
                // Another version of this program may allow other names of pools.
                let valid = pools.split_whitespace().filter_map(|pool| pool.parse().ok());
                self.unread.lock().pools.extend::<Vec<PoolName>>(valid.collect());
                self.has_unread.notify_one();
            }
            ChannelEvent::Lost(reason) => {
                // One error per loss, even if subscribing again fails several times.
                if self.subscription.set(Err(reason.to_owned())) {
                    self.unread.lock().lost = Some(reason.to_owned());
                    self.has_unread.notify_one();
                }
            }
        }
    }

    async fn next(&self) -> Result<PoolName> {
        loop {
            {
                let mut unread = self.unread.lock();
                if let Some(reason) = unread.lost.take() {
                    let message = format_args!("the subscription to the channel {CHANNEL} is lost: {reason}");
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                if let Some(pool) = unread.pools.pop_first() {
                    return Ok(pool);
                }
            }
            self.has_unread.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::RedisLedger;
    use super::*;
    use crate::fixture::RedisFixture;
    use queue::{DEAD_RETENTION, Ledger};
    use queue_contract::{Fixture, job, pool, soon};

    #[tokio::test]
    async fn arrivals_report_a_lost_connection_and_continue_after_it() {
        let fixture = RedisFixture::start();
        let following = fixture.open().await;
        let other = RedisLedger::new(fixture.redis(), DEAD_RETENTION);
        let mut arrivals = following.ledger.arrivals().await.unwrap();
        for round in 0..5 {
            fixture.cut_connections();
            let lost = async {
                loop {
                    if let Err(error) = arrivals.next().await.unwrap() {
                        return error;
                    }
                }
            };
            assert_eq!(soon(lost).await.kind(), ErrorKind::Unavailable);
            // A job that is submitted before the subscription is active again is not reported. So several are submitted.
            let submitting = async {
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                for number in 0.. {
                    pace.tick().await;
                    other.submit(&[job(&fixture, &format!("job-{round}-{number}"))]).await.unwrap();
                }
            };
            let named = soon(async {
                tokio::select! {
                    () = submitting => unreachable!("it ends only when an arrival is reported"),
                    named = arrivals.next() => named.unwrap(),
                }
            });
            assert_eq!(named.await.unwrap(), pool());
        }
    }

    #[tokio::test]
    async fn arrivals_fail_when_there_is_no_server() {
        let url = "redis://127.0.0.1:1".parse().unwrap();
        let ledger = RedisLedger::new(Redis::open(&url, queue::Clock::default()).unwrap(), DEAD_RETENTION);
        let error = soon(ledger.arrivals()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
