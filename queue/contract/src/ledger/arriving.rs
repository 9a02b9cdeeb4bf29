//! Notices of pools that may have new work.

use futures::stream::BoxStream;

use super::*;

type Arrivals = BoxStream<'static, queue::Result<PoolName>>;

/// Returns when a notice names `pool`; notices of other pools are ignored.
async fn named(arrivals: &mut Arrivals, pool: &PoolName) {
    let naming = async { while arrivals.next().await.unwrap().unwrap() != *pool {} };
    soon(naming).await;
}

pub async fn arrivals_names_the_pools_of_new_jobs_from_any_process(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let (mut here, mut there) = (one.arrivals().await.unwrap(), another.arrivals().await.unwrap());
    let elsewhere: PoolName = "bert".parse().unwrap();
    let jobs = [job(fixture, "ours"), Job { pool: elsewhere.clone(), ..job(fixture, "theirs") }];
    assert_eq!(one.submit(&jobs).await.unwrap(), [Submitted::New, Submitted::New]);
    for arrivals in [&mut here, &mut there] {
        let named = [soon(arrivals.next()).await, soon(arrivals.next()).await].map(|named| named.unwrap().unwrap());
        assert!(named.contains(&pool()) && named.contains(&elsewhere), "{named:?}");
    }
}

pub async fn arrivals_names_the_pool_of_a_requeued_job(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let job = job(fixture, "job");
    accept(&*one, std::slice::from_ref(&job)).await;
    let lease = claim(&*one, &job).await;
    finish(&*one, &lease, Outcome::Failed(error("wrong"))).await;
    let mut arrivals = another.arrivals().await.unwrap();
    assert!(poll!(arrivals.next()).is_pending());
    one.requeue(&job.id, None).await.unwrap();
    named(&mut arrivals, &pool()).await;
}

pub async fn arrivals_names_the_pool_of_a_job_that_is_due(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let job = job(fixture, "job");
    accept(&*one, std::slice::from_ref(&job)).await;
    let lease = claim(&*one, &job).await;
    finish(&*one, &lease, retry(LEASE)).await;
    let mut arrivals = another.arrivals().await.unwrap();
    assert!(poll!(arrivals.next()).is_pending());
    fixture.advance(LEASE * 2).await;
    assert_eq!(due(&*one).await.len(), 1);
    named(&mut arrivals, &pool()).await;
}

/// Each round waits for a notice. With polling every second instead, two hundred rounds would take too long.
pub async fn arrivals_come_by_notification_and_not_by_polling(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let mut arrivals = another.arrivals().await.unwrap();
    let rounds = async {
        for round in 0..200 {
            let pool: PoolName = format!("pool-{}", round % 7).parse().unwrap();
            one.submit(&[Job { pool: pool.clone(), ..job(fixture, &format!("job-{round}")) }]).await.unwrap();
            named(&mut arrivals, &pool).await;
        }
    };
    soon(rounds).await;
}
