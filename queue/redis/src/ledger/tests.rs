use bytes::Bytes;

use super::*;
use crate::connection::private::PrivateRedis;
use crate::fixture::RedisFixture;
use queue::ledger::JobState;
use queue::{Clock, DEAD_RETENTION, EndRate, JobErrorKind, Output, Severity};
use queue_contract::{Fixture, LEASE, job, soon};

fn ledger_at(server: &PrivateRedis, clock: &Clock) -> RedisLedger {
    let url = format!("redis://{}", server.address()).parse().unwrap();
    RedisLedger::new(Redis::open(&url, clock.clone()).unwrap(), DEAD_RETENTION)
}

async fn claim(ledger: &RedisLedger, job: &Job) -> Lease {
    let request = ClaimRequest::new(job.clone(), false);
    match ledger.claim(&WorkerId::new("worker"), vec![request], LEASE).await.unwrap().remove(0) {
        Claim::Granted { lease, .. } => lease,
        other => panic!("not granted: {other:?}"),
    }
}

async fn finish(ledger: &RedisLedger, lease: Lease) {
    let output = Output { media_type: "text/plain".to_owned(), body: Body::Inline("done".into()) };
    let finishes = vec![Finish { lease, outcome: Outcome::Succeeded(output) }];
    assert_eq!(ledger.finish(finishes).await.unwrap()[0].state(), Some(JobState::Succeeded));
}

#[tokio::test]
async fn written_records_survive_a_kill_of_the_server() {
    // Only for jobs of the usual kind, because this ledger has a server of its own.
    let fixture = RedisFixture::start();
    let [done, leased, queued] = ["done", "leased", "queued"].map(|id| job(&fixture, id));
    let mut server = PrivateRedis::started(&["--appendfsync", "always"]);
    let clock = Clock::shifted();
    let ledger = ledger_at(&server, &clock);
    ledger.submit(&[done.clone(), leased.clone(), queued.clone()]).await.unwrap();
    finish(&ledger, claim(&ledger, &done).await).await;
    let lease = claim(&ledger, &leased).await;
    let mut watch = ledger.watch(&queued.id).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().state, JobState::Queued);

    server.kill();
    server.start();
    let ledger = ledger_at(&server, &clock);
    assert_eq!(ledger.get(&done.id).await.unwrap().unwrap().state, JobState::Succeeded);
    assert_eq!(ledger.renew(std::slice::from_ref(&lease), LEASE).await.unwrap(), [true]);
    let open = ledger.counts(std::slice::from_ref(&queued.pool)).await.unwrap()[0];
    assert_eq!(open, JobCounts { queued: 1, leased: 1, retry: 0, ended: 1 });
    clock.advance(PUBLISH_TIMEOUT * 2);
    let due: Vec<_> = ledger.due(10).await.unwrap().into_iter().map(|due| due.job).collect();
    assert!(due.len() == 2 && due.contains(&queued) && due.contains(&leased), "{due:?}");
    // A watch that began before the kill is notified.
    ledger.cancel(&queued.id).await.unwrap();
    let last = soon(watch.map(|record| record.unwrap()).collect::<Vec<_>>()).await.pop().unwrap();
    assert_eq!(last.state, JobState::Cancelled);
}

#[tokio::test]
async fn a_full_server_rejects_jobs_until_others_have_ended_and_are_deleted() {
    let fixture = RedisFixture::start();
    let large = |number: usize| {
        let mut job = job(&fixture, &format!("job-{number}"));
        job.input.body = Body::Inline(Bytes::from(vec![7; 64 << 10]));
        job
    };
    let server = PrivateRedis::started(&["--maxmemory", "6mb"]);
    let clock = Clock::shifted();
    let ledger = ledger_at(&server, &clock);
    let mut accepted = Vec::new();
    // A call counts while it is in the server's memory, so a call for one job still has room after one for two jobs.
    let mut at_once = 2;
    let error = loop {
        let batch: Vec<_> = (accepted.len()..accepted.len() + at_once).map(large).collect();
        match ledger.submit(&batch).await {
            Ok(_) => accepted.extend(batch),
            Err(error) if error.kind() == ErrorKind::Full && at_once > 1 => at_once -= 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    let rejected = large(accepted.len());
    assert_eq!(ledger.get(&rejected.id).await.unwrap(), None);
    let count = u64::try_from(accepted.len()).unwrap();
    assert!(count > 10);
    let open = ledger.counts(std::slice::from_ref(&rejected.pool)).await.unwrap()[0];
    assert_eq!(open, JobCounts { queued: count, ..JobCounts::default() });

    // A failed job keeps its input, because it can be requeued.
    for job in &accepted {
        fail(&ledger, job).await;
    }
    assert_eq!(ledger.submit(std::slice::from_ref(&rejected)).await.unwrap_err().kind(), ErrorKind::Full);
    let error = ledger.submit_and_publish(std::slice::from_ref(&rejected)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(ledger.get(&rejected.id).await.unwrap(), None);
    clock.advance(DEAD_RETENTION * 2);
    while ledger.purge(10).await.unwrap().is_some() {}
    // The server frees their memory in the background.
    let submitted = async {
        loop {
            match ledger.submit(std::slice::from_ref(&rejected)).await {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Full, "{error}"),
                submitted => break submitted.unwrap(),
            }
        }
    };
    assert_eq!(soon(submitted).await, [Submitted::New]);
}

#[tokio::test]
async fn a_full_server_accepts_jobs_again_when_others_have_succeeded() {
    let fixture = RedisFixture::start();
    let server = PrivateRedis::started(&["--maxmemory", "6mb"]);
    let ledger = ledger_at(&server, &Clock::shifted());
    let mut accepted = Vec::new();
    let rejected = loop {
        let mut job = job(&fixture, &format!("job-{}", accepted.len()));
        job.input.body = Body::Inline(Bytes::from(vec![7; 64 << 10]));
        match ledger.submit(std::slice::from_ref(&job)).await {
            Ok(_) => accepted.push(job),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                break job;
            }
        }
    };
    for job in &accepted {
        finish(&ledger, claim(&ledger, job).await).await;
    }
    // The server frees their inputs in the background.
    let submitted = async {
        loop {
            match ledger.submit(std::slice::from_ref(&rejected)).await {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Full, "{error}"),
                submitted => break submitted.unwrap(),
            }
        }
    };
    assert_eq!(soon(submitted).await, [Submitted::New]);
}

#[tokio::test]
async fn a_job_that_cannot_be_published_has_no_record_and_the_others_of_its_call_have_theirs() {
    let fixture = RedisFixture::start();
    let redis = fixture.redis();
    let ledger = RedisLedger::new(redis.clone(), DEAD_RETENTION);
    let (first, last) = (job(&fixture, "first"), job(&fixture, "last"));
    let blocked = Job { class: queue::Class::Batch, ..job(&fixture, "blocked") };
    let mut block = redis::cmd("SET");
    block.arg(crate::broker::streams::published(&redis, &blocked.pool, blocked.class)).arg("of another program");
    redis.run::<()>("block a stream", &block).await.unwrap();
    let error = ledger.submit_and_publish(&[first.clone(), blocked.clone(), last.clone()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(ledger.get(&blocked.id).await.unwrap(), None);
    let open = ledger.counts(std::slice::from_ref(&first.pool)).await.unwrap()[0];
    assert_eq!(open, JobCounts { queued: 2, ..JobCounts::default() });
    for answer in ledger.submit_and_publish(&[first, last]).await.unwrap() {
        assert!(matches!(answer, Submitted::Existing { publish: None, .. }), "{answer:?}");
    }
}

/// Ends a job as failed.
async fn fail(ledger: &RedisLedger, job: &Job) {
    let error = JobErrorKind::BadInput.error("no digit");
    let finishes = vec![Finish { lease: claim(ledger, job).await, outcome: Outcome::Failed(error) }];
    assert_eq!(ledger.finish(finishes).await.unwrap()[0].state(), Some(JobState::Failed));
}

fn failed() -> DeadFilter {
    DeadFilter { pool: None, state: JobState::Failed }
}

#[tokio::test]
async fn records_can_be_read_while_the_server_rejects_writes() {
    let fixture = RedisFixture::start();
    let server = PrivateRedis::started(&[]);
    let ledger = ledger_at(&server, &Clock::default());
    let [existing, new] = ["existing", "new"].map(|id| job(&fixture, id));
    fail(&ledger, &existing).await;
    server.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    assert_eq!(ledger.submit(&[new]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(ledger.get(&existing.id).await.unwrap().unwrap().state, JobState::Failed);
    assert_eq!(ledger.input(&existing.id).await.unwrap(), Some(existing.input));
    assert_eq!(ledger.dead(&failed(), None, 10).await.unwrap().jobs[0].id, existing.id);
}

#[tokio::test]
async fn dead_jobs_that_cannot_be_read_do_not_hide_the_others() {
    let fixture = RedisFixture::start();
    let (ledger, redis) = (fixture.open().await.ledger, fixture.redis());
    let ledger_here = RedisLedger::new(fixture.redis(), DEAD_RETENTION);
    for id in ["a", "b", "c", "d", "e", "f"] {
        fail(&ledger_here, &job(&fixture, id)).await;
        fixture.advance(Duration::from_secs(1)).await;
    }
    // The second to last page contains only these two.
    let mut overwrite = redis::cmd("HSET");
    overwrite.arg(redis.key("job:c")).arg("class").arg("first");
    redis.run::<()>("overwrite", &overwrite).await.unwrap();
    let mut delete = redis::cmd("DEL");
    delete.arg(redis.key("job:d"));
    redis.run::<()>("delete", &delete).await.unwrap();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = ledger.dead(&failed(), after.as_ref(), 2).await.unwrap();
        found.extend(page.jobs.into_iter().map(|job| job.id.to_string()));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(found, ["f", "e", "b", "a"]);
}

#[tokio::test]
async fn a_record_of_a_wrong_type_leaves_the_counts_of_its_batch_right() {
    let fixture = RedisFixture::start();
    let (ledger, redis) = (RedisLedger::new(fixture.redis(), DEAD_RETENTION), fixture.redis());
    let [first, bad, last] = ["first", "bad", "last"].map(|id| job(&fixture, id));
    ledger.submit(&[first.clone(), bad.clone(), last.clone()]).await.unwrap();
    let mut overwrite = redis::cmd("SET");
    overwrite.arg(redis.key("job:bad")).arg("a text");
    let mut delete = redis::cmd("DEL");
    delete.arg(redis.key("job:bad"));
    redis.run::<()>("delete", &delete).await.unwrap();
    redis.run::<()>("overwrite", &overwrite).await.unwrap();

    let worker = WorkerId::new("worker");
    let requests: Vec<_> = [&first, &bad, &last].map(|job| ClaimRequest::new(job.clone(), false)).into();
    let error = ledger.claim(&worker, requests.clone(), LEASE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let counts = async || ledger.counts(std::slice::from_ref(&first.pool)).await.unwrap()[0];
    assert_eq!(counts().await, JobCounts { queued: 1, leased: 2, retry: 0, ended: 0 });
    // The same requests without the bad one get the same leases again.
    let sound: Vec<_> = requests.into_iter().filter(|request| request.job.id != bad.id).collect();
    let mut leases = Vec::new();
    for claim in ledger.claim(&worker, sound, LEASE).await.unwrap() {
        let Claim::Granted { lease, .. } = claim else { panic!("{claim:?}") };
        leases.push(lease);
    }
    leases.insert(1, Lease { id: bad.id.clone(), fence: 1, attempt: 1 });
    let error = ledger.renew(&leases, LEASE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let output = || Output { media_type: "text/plain".to_owned(), body: Body::Inline("done".into()) };
    let finish = |lease| Finish { lease, outcome: Outcome::Succeeded(output()) };
    let error = ledger.finish(leases.into_iter().map(finish).collect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(counts().await, JobCounts { queued: 1, leased: 0, retry: 0, ended: 2 });
}

#[tokio::test]
async fn the_server_holds_no_input_of_a_job_that_succeeded() {
    let fixture = RedisFixture::start();
    let (ledger, redis) = (RedisLedger::new(fixture.redis(), DEAD_RETENTION), fixture.redis());
    let [done, failed] = ["done", "failed"].map(|id| job(&fixture, id));
    ledger.submit(&[done.clone(), failed.clone()]).await.unwrap();
    finish(&ledger, claim(&ledger, &done).await).await;
    fail(&ledger, &failed).await;
    let exists = async |key: &str| {
        let mut exists = redis::cmd("EXISTS");
        exists.arg(redis.key(key));
        redis.run::<bool>("look for a key", &exists).await.unwrap()
    };
    assert_eq!((exists("input:done").await, exists("input:failed").await), (false, true));
}

async fn overwrite(redis: &Redis, key: &str) {
    let mut set = redis::cmd("SET");
    set.arg(redis.key(key)).arg("a text");
    redis.run::<()>("overwrite", &set).await.unwrap();
}

async fn set_field(redis: &Redis, id: &str, field: &str, value: &str) {
    let mut set = redis::cmd("HSET");
    set.arg(redis.key(&format!("job:{id}"))).arg(field).arg(value);
    redis.run::<()>("set a field", &set).await.unwrap();
}

#[tokio::test]
async fn a_due_job_that_cannot_be_read_ends_and_does_not_stop_the_others() {
    let fixture = RedisFixture::start();
    let (ledger, redis) = (RedisLedger::new(fixture.redis(), DEAD_RETENTION), fixture.redis());
    let jobs = ["text", "fence", "class", "sound"].map(|id| job(&fixture, id));
    ledger.submit(&jobs).await.unwrap();
    overwrite(&redis, "job:text").await;
    set_field(&redis, "fence", "fence", "first").await;
    set_field(&redis, "class", "class", "first").await;
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    let due: Vec<_> = ledger.due(10).await.unwrap().into_iter().map(|due| due.job).collect();
    assert_eq!(due, [jobs[3].clone()]);
    let counts = ledger.counts(std::slice::from_ref(&jobs[0].pool)).await.unwrap()[0];
    assert_eq!(counts, JobCounts { queued: 1, leased: 0, retry: 1, ended: 2 });
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert_eq!(ledger.due(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_old_job_of_a_wrong_type_does_not_stop_the_purge() {
    let fixture = RedisFixture::start();
    let (ledger, redis) = (RedisLedger::new(fixture.redis(), DEAD_RETENTION), fixture.redis());
    for id in ["bad", "sound"] {
        fail(&ledger, &job(&fixture, id)).await;
    }
    overwrite(&redis, "job:bad").await;
    fixture.advance(DEAD_RETENTION * 2).await;
    assert_eq!(ledger.purge(10).await.unwrap(), Some(Vec::new()));
    assert_eq!(ledger.purge(10).await.unwrap(), None);
    for id in ["bad", "sound"] {
        assert_eq!(ledger.get(&id.parse().unwrap()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_job_that_no_claim_can_grant_ends() {
    let fixture = RedisFixture::start();
    let (ledger, redis) = (RedisLedger::new(fixture.redis(), DEAD_RETENTION), fixture.redis());
    let [bad, sound] = ["bad", "sound"].map(|id| job(&fixture, id));
    ledger.submit(&[bad.clone(), sound.clone()]).await.unwrap();
    set_field(&redis, "bad", "attempts", "first").await;
    let requests = [&bad, &sound].map(|job| ClaimRequest::new(job.clone(), false)).to_vec();
    let claims = ledger.claim(&WorkerId::new("worker"), requests, LEASE).await.unwrap();
    assert!(matches!(claims[..], [Claim::Ended(JobState::Failed), Claim::Granted { .. }]), "{claims:?}");
    let counts = ledger.counts(std::slice::from_ref(&bad.pool)).await.unwrap()[0];
    assert_eq!(counts, JobCounts { queued: 0, leased: 1, retry: 0, ended: 1 });
}

#[tokio::test]
async fn a_server_that_writes_nothing_to_disk_is_a_severe_risk() {
    let safe = PrivateRedis::started(&["--appendfsync", "always"]);
    assert_eq!(ledger_at(&safe, &Clock::default()).risks().await.unwrap(), []);
    let unsafe_server = PrivateRedis::started(&["--appendonly", "no"]);
    let risks = ledger_at(&unsafe_server, &Clock::default()).risks().await.unwrap();
    let found: Vec<_> = risks.iter().map(|risk| (risk.severity, risk.setting.as_str())).collect();
    assert_eq!(found, [(Severity::Severe, "appendonly")]);
}

#[tokio::test]
async fn batches_of_several_script_calls_are_answered_in_order() {
    let fixture = RedisFixture::start();
    let ledger = fixture.open().await.ledger;
    let jobs = queue_contract::jobs(&fixture, CHUNK_ITEMS * 2 + 3);
    assert_eq!(ledger.submit(&jobs[1..]).await.unwrap(), vec![Submitted::New; jobs.len() - 1]);
    // The first has no record yet.
    let requests = jobs.iter().map(|job| ClaimRequest::new(job.clone(), false)).collect();
    let claims = ledger.claim(&WorkerId::new("worker"), requests, LEASE).await.unwrap();
    let lease = |claim: Claim| match claim {
        Claim::Granted { lease, .. } => lease,
        other => panic!("not granted: {other:?}"),
    };
    let leases: Vec<Lease> = claims.into_iter().map(lease).collect();
    assert!(leases.iter().map(|lease| &lease.id).eq(jobs.iter().map(|job| &job.id)));
    assert_eq!(ledger.renew(&leases, LEASE).await.unwrap(), vec![true; jobs.len()]);
    let finishes = leases.into_iter().map(|lease| Finish { lease, outcome: Outcome::Released }).collect();
    let released = Finished::Recorded { state: JobState::Queued, finished_at: None };
    assert_eq!(ledger.finish(finishes).await.unwrap(), vec![released; jobs.len()]);
    let open = ledger.counts(std::slice::from_ref(&jobs[0].pool)).await.unwrap()[0];
    assert_eq!(open.queued, u64::try_from(jobs.len()).unwrap());
}

#[tokio::test]
async fn records_that_will_exceed_the_memory_of_the_server_are_a_risk() {
    let fixture = RedisFixture::start();
    let server = PrivateRedis::started(&["--maxmemory", "6mb"]);
    let ledger = ledger_at(&server, &Clock::shifted());
    for number in 0..20 {
        let job = job(&fixture, &format!("job-{number}"));
        ledger.submit(std::slice::from_ref(&job)).await.unwrap();
        finish(&ledger, claim(&ledger, &job).await).await;
    }
    let usage = ledger.usage().await.unwrap().unwrap();
    assert_eq!((usage.capacity_bytes, usage.limit.as_str()), (6 << 20, "maxmemory"));
    // A small record takes less than 2 KiB.
    let risk = |seconds| {
        let retention = Duration::from_secs(seconds);
        usage.risk(&[EndRate { pool: queue_contract::pool(), per_second: 10.0, retention }])
    };
    assert_eq!(risk(60), None);
    let risk = risk(24 * 3600).unwrap();
    assert_eq!((risk.severity, risk.setting.as_str()), (Severity::Warning, "maxmemory"));
    assert!(risk.found.contains("of 6.0 MiB (maxmemory)"), "{risk:?}");
    assert!(risk.subject.contains(&server.address()), "{risk:?}");
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let usage = ledger.usage().await.unwrap().unwrap();
    assert!(usage.capacity_bytes > 1 << 30 && usage.limit.contains("maxmemory is 0"), "{usage:?}");
    server.run::<()>(&["ACL", "SETUSER", "default", "-memory"]).await;
    assert_eq!(ledger.usage().await.unwrap(), None);
}
