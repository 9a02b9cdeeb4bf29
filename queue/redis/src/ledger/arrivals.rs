//! Which pools may have got work: heard on a subscription of its own, since most processes never ask.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::channel::{self, Heard, Standing};
use crate::connection::Redis;
use queue::{Error, ErrorKind, PoolName, Result};

/// Where it is told.
const CHANNEL: &str = "arrived";

struct Arrivals {
    news: Mutex<News>,
    has_news: Notify,
    standing: Standing,
}

/// What is still to be told.
#[derive(Default)]
struct News {
    lost: Option<String>,
    pools: BTreeSet<PoolName>,
}

/// Follows what any process tells, from when this returns.
pub(super) async fn follow(redis: &Redis) -> Result<BoxStream<'static, Result<PoolName>>> {
    let arrivals =
        Arc::new(Arrivals { news: Mutex::default(), has_news: Notify::new(), standing: Standing::not_yet() });
    let hearing = Arc::clone(&arrivals);
    let following = tokio::spawn(channel::follow(redis.clone(), CHANNEL, move |heard| hearing.hear(heard)));
    let following = AbortOnDropHandle::new(following);
    arrivals.standing.wait(CHANNEL).await?;
    let told = stream::unfold((arrivals, following), async |(arrivals, following)| {
        Some((arrivals.next().await, (arrivals, following)))
    });
    Ok(told.boxed())
}

impl Arrivals {
    fn hear(&self, heard: Heard<'_>) {
        match heard {
            Heard::Standing => drop(self.standing.set(Ok(()))),
            Heard::Names(pools) => {
                // Another version of this program may name its pools otherwise.
                let known = pools.split_whitespace().filter_map(|pool| pool.parse().ok());
                self.lock().pools.extend::<Vec<PoolName>>(known.collect());
                self.has_news.notify_one();
            }
            Heard::Lost(why) => {
                // Once for each loss, however often subscribing again fails.
                if self.standing.set(Err(why.to_owned())) {
                    self.lock().lost = Some(why.to_owned());
                    self.has_news.notify_one();
                }
            }
        }
    }

    async fn next(&self) -> Result<PoolName> {
        loop {
            {
                let mut news = self.lock();
                if let Some(why) = news.lost.take() {
                    let message = format_args!("the subscription to the channel {CHANNEL} is lost: {why}");
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                if let Some(pool) = news.pools.pop_first() {
                    return Ok(pool);
                }
            }
            self.has_news.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        // Every change under it is a single call, so a panic cannot leave it half-changed.
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::RedisLedger;
    use super::*;
    use crate::fixture::RedisFixture;
    use queue::Ledger;
    use queue_contract::{Fixture, job, pool, soon};

    #[tokio::test]
    async fn arrivals_go_on_over_a_lost_connection_and_tell_of_the_loss() {
        let fixture = RedisFixture::start();
        let listening = fixture.open().await;
        let other = RedisLedger::new(fixture.redis());
        let mut arrivals = listening.ledger.arrivals().await.unwrap();
        for round in 0..5 {
            fixture.cut_lines();
            let lost = async {
                loop {
                    if let Err(error) = arrivals.next().await.unwrap() {
                        return error;
                    }
                }
            };
            assert_eq!(soon(lost).await.kind(), ErrorKind::Unavailable);
            // What is submitted before the subscription stands again is not told: so more than one.
            let submitting = async {
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                for number in 0.. {
                    pace.tick().await;
                    other.submit(&[job(&fixture, &format!("job-{round}-{number}"))]).await.unwrap();
                }
            };
            let named = soon(async {
                tokio::select! {
                    () = submitting => unreachable!("it goes on until one is heard of"),
                    named = arrivals.next() => named.unwrap(),
                }
            });
            assert_eq!(named.await.unwrap(), pool());
        }
    }

    #[tokio::test]
    async fn arrivals_fail_when_there_is_no_server() {
        let url = "redis://127.0.0.1:1".parse().unwrap();
        let ledger = RedisLedger::new(Redis::open(&url, queue::Clock::default()).unwrap());
        let error = soon(ledger.arrivals()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
