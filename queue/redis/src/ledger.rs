//! The ledger in Redis.
//!
//! It is as durable as Redis is configured. With `appendonly yes` and `appendfsync always`, every completed call survives
//! a crash of the server. With `appendfsync everysec`, up to the last second of writes may be lost. After a failover, the
//! writes that the new primary had not received yet are lost. The job's message is still in the broker then, and its next
//! claim opens a new record.
//!
//! The keys of an installation, after its prefix:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `job:ID` | hash | a job's record, without its input and output |
//! | `input:ID`, `output:ID` | string | the bytes, where they are not in the blob store; no input of a job that succeeded |
//! | `due` | sorted set | jobs by the time at which they must be published (again), or their lease expires |
//! | `over` | sorted set | ended jobs by the end of their retention |
//! | `open:POOL` | hash | the number of jobs in each open state, and of ended ones |
//! | `attempts:ID` | list | the failed attempts at a job, as JSON |
//! | `dead`, `failed`, `dead:POOL`, `failed:POOL` | sorted set | dead and failed jobs by the time they ended, of all pools and of one |
//! | `upkeep` | hash | the process that does the upkeep, and the end of its lease |
//! | `looked_at`, `resumed_at` | string | the time of the last look for due jobs, and the end of the last gap between looks |
//! | `set_back` | string | after the clock was set back: the part of `due` that must follow it, as a cursor |
//! | `blob_store` | string | the id of the blob store that belongs to this ledger |
//! | `ledger` | string | the id of this ledger |
//! | `ended` | channel | ids of jobs that have just ended, separated by spaces |
//! | `arrived` | channel | pools that may have new work, separated by spaces |
//!
//! Every change is a script. So it happens in one step and one round trip, and uses the server's clock. When the server's
//! memory is full, only [`Ledger::submit`] fails. Workers can still finish the jobs that are there, which uses a little
//! more than `maxmemory`.

mod arrivals;
mod channel;
mod counts;
mod dead;
mod ended;
mod rows;
mod scripts;
#[cfg(test)]
mod tests;
mod usage;

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use redis::Script;
use tokio::time::Instant;

use self::ended::{EndedNotice, EndedNotices};
use self::rows::{Fields, Row};
use self::scripts::{CHUNK_BYTES, CHUNK_ITEMS, Call, chunks, same_length};
use crate::connection::{Backoff, Redis};
use queue::driver::{BodyColumns, CHECK_AFTER, CHECK_RELEASED_AFTER, milliseconds_of};
use queue::{BlobRef, Body, Error, ErrorKind, Input, Job, JobId, PoolName, Result, Risk, StoreId, Usage, WorkerId};
use queue::{
    Claim, ClaimRequest, DeadFilter, DeadPage, DeadPosition, DueJob, Finish, Finished, Forgotten, JobCounts, JobRecord,
    Lease, Ledger, Outcome, Publication, Purged, Requeued, Submitted,
};

/// The time after a submission, or after a job was taken as due, in which its publication must be confirmed. Otherwise the
/// job is due (again).
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a watch retries while the server is unavailable.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer of the script about a job with a record: its code, the fence of a missing publication, and the record.
type SubmitAnswer = (u8, Option<u64>, Fields, Option<Vec<u8>>);

/// About the most arguments of one submitted job, and about the bytes in them besides its input.
const JOB_ARGUMENTS: usize = 40;
const JOB_BYTES: usize = 768;

/// The code for a record with the same pool and input.
const EXISTS: u8 = 2;

pub(crate) struct RedisLedger {
    redis: Redis,
    ended: EndedNotices,
    dead_retention: Duration,
}

impl RedisLedger {
    pub(crate) fn new(redis: Redis, dead_retention: Duration) -> Self {
        let ended = EndedNotices::new(redis.clone());
        Self { redis, ended, dead_retention }
    }

    /// Submits jobs. `add_entry` adds the entry of a job that the same call publishes.
    async fn submit_all(&self, jobs: &[Job], add_entry: fn(&mut Call<'_>, &Job)) -> Result<Vec<Submitted>> {
        let mut submitted = Vec::with_capacity(jobs.len());
        for jobs in chunks(jobs, |job| bytes_of(&job.input.body)) {
            let bytes = jobs.iter().map(|job| JOB_BYTES + bytes_of(&job.input.body)).sum();
            let mut call = Call::with_capacity(&self.redis, &scripts::SUBMIT, jobs.len() * JOB_ARGUMENTS, bytes)
                .with_number(milliseconds_of(PUBLISH_TIMEOUT))
                .with_number(milliseconds_of(CHECK_AFTER));
            for job in jobs {
                call.add_job(job);
                add_entry(&mut call, job);
            }
            let answers: Vec<Option<SubmitAnswer>> = call.run("submit").await?;
            same_length(jobs.len(), &answers)?;
            for (job, answer) in jobs.iter().zip(answers) {
                let Some((code, fence, fields, output)) = answer else {
                    submitted.push(Submitted::New);
                    continue;
                };
                submitted.push(match rows::record(&job.id, (fields, output))? {
                    Some(record) if code == EXISTS => Submitted::Existing {
                        record: Box::new(record),
                        publish: fence.map(|fence| Publication { id: job.id.clone(), fence }),
                    },
                    _ => Submitted::Conflict,
                });
            }
        }
        Ok(submitted)
    }

    /// A call of a script that may end jobs as failed or dead.
    fn ending<'a>(&'a self, script: &'a Script) -> Call<'a> {
        Call::new(&self.redis, script).with_number(milliseconds_of(self.dead_retention))
    }

    /// Claims the jobs of one script call. A request with `true` includes the whole job, so that its record can be opened.
    async fn claim_chunk(
        &self,
        worker: &WorkerId,
        requests: &[(&ClaimRequest, bool)],
        lease: Duration,
    ) -> Result<Vec<Claimed>> {
        let mut call = self.ending(&scripts::CLAIM).with(worker.as_str()).with_number(milliseconds_of(lease));
        for (request, with_job) in requests {
            call.add(request.job.id.as_str());
            call.add_number(u8::from(request.redelivered));
            call.add(request.token());
            call.add_number(u8::from(*with_job));
            if *with_job {
                call.add_job(&request.job);
            }
        }
        let answers: Vec<(String, u64, u32)> = call.run("claim").await?;
        same_length(requests.len(), &answers)?;
        let claimed = |((request, _), (answer, number, attempt)): (&(&ClaimRequest, bool), (String, u64, u32))| {
            let lease = || Lease { id: request.job.id.clone(), fence: number, attempt };
            Ok(Some(match answer.as_str() {
                "granted" => Claim::Granted { lease: lease(), alone: false },
                "alone" => Claim::Granted { lease: lease(), alone: true },
                "ended" => Claim::Ended(rows::state(number.try_into().unwrap_or(-1))?),
                "held_elsewhere" => Claim::HeldElsewhere,
                _ => return Ok(None),
            }))
        };
        requests.iter().zip(answers).map(claimed).collect()
    }
}

/// A job that was taken as due: its id, the fence of its publication, its fields and its input.
type TakenJob = (String, u64, Fields, Option<Vec<u8>>);

fn due_job(id: &str, fence: u64, row: Row) -> Result<DueJob> {
    let id: JobId = id.parse()?;
    Ok(DueJob { job: rows::job(&id, row)?, publication: Publication { id, fence } })
}

/// The answer to one claim. `None` where there is no record of the job.
type Claimed = Option<Claim>;

#[async_trait]
impl Ledger for RedisLedger {
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        self.submit_all(jobs, |call, _| call.add_number(0)).await
    }

    fn store(&self) -> Option<StoreId> {
        Some(self.redis.id())
    }

    async fn submit_and_publish(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        self.submit_all(jobs, |call, job| call.add_entry(job)).await
    }

    async fn published(&self, publications: &[Publication]) -> Result<()> {
        for publications in chunks(publications, |_| 0) {
            let mut call = Call::new(&self.redis, &scripts::PUBLISHED).with_number(milliseconds_of(CHECK_AFTER));
            for Publication { id, fence } in publications {
                call.add(id.as_str());
                call.add_number(*fence);
            }
            call.run::<()>("confirm publications").await?;
        }
        Ok(())
    }

    async fn claim(&self, worker: &WorkerId, requests: Vec<ClaimRequest>, lease: Duration) -> Result<Vec<Claim>> {
        let mut claims: Vec<Claimed> = Vec::with_capacity(requests.len());
        // Most jobs have a record already, so their inputs need not be sent.
        let by_id: Vec<_> = requests.iter().map(|request| (request, false)).collect();
        for chunk in chunks(&by_id, |_| 0) {
            claims.extend(self.claim_chunk(worker, chunk, lease).await?);
        }
        let unknown: Vec<usize> = (0..claims.len()).filter(|index| claims[*index].is_none()).collect();
        let whole: Vec<_> = unknown.iter().map(|index| (&requests[*index], true)).collect();
        let mut opened = Vec::with_capacity(unknown.len());
        for chunk in chunks(&whole, |(request, _)| bytes_of(&request.job.input.body)) {
            opened.extend(self.claim_chunk(worker, chunk, lease).await?);
        }
        for (index, claim) in unknown.into_iter().zip(opened) {
            claims[index] = claim;
        }
        let answers: Option<Vec<Claim>> = claims.into_iter().collect();
        answers.ok_or_else(|| Error::new(ErrorKind::Corrupt, "redis has no record of a job that was just opened"))
    }

    async fn begin(&self, lease: &Lease) -> Result<bool> {
        Call::new(&self.redis, &scripts::BEGIN).with(lease.id.as_str()).with_number(lease.fence).run("begin").await
    }

    async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<bool>> {
        let mut renewed = Vec::with_capacity(leases.len());
        for leases in chunks(leases, |_| 0) {
            let mut call = Call::new(&self.redis, &scripts::RENEW).with_number(milliseconds_of(lease));
            for lease in leases {
                call.add(lease.id.as_str());
                call.add_number(lease.fence);
            }
            let answers: Vec<bool> = call.run("renew leases").await?;
            same_length(leases.len(), &answers)?;
            renewed.extend(answers);
        }
        Ok(renewed)
    }

    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>> {
        let bytes = |finish: &Finish| match &finish.outcome {
            Outcome::Succeeded(output) => bytes_of(&output.body),
            _ => 0,
        };
        let mut finished = Vec::with_capacity(finishes.len());
        for finishes in chunks(&finishes, bytes) {
            let mut call = self.ending(&scripts::FINISH).with_number(milliseconds_of(CHECK_RELEASED_AFTER));
            finishes.iter().for_each(|finish| add_finish(&mut call, finish));
            let answers: Vec<i64> = call.run("finish").await?;
            same_length(finishes.len() + 1, &answers)?;
            let (now, codes) = (answers[0], &answers[1..]);
            for code in codes {
                finished.push(if *code < 0 { Finished::LeaseLost } else { rows::finished(*code, now)? });
            }
        }
        Ok(finished)
    }

    async fn cancel(&self, id: &JobId) -> Result<Option<JobRecord>> {
        let row: Row = Call::new(&self.redis, &scripts::CANCEL).with(id.as_str()).run("cancel").await?;
        rows::record(id, row)
    }

    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        let (record, attempts) = read(&self.redis, id).await?;
        let Some(record) = record else { return Ok(None) };
        Ok(Some(JobRecord { history: rows::history(id, &attempts)?, ..record }))
    }

    async fn input(&self, id: &JobId) -> Result<Option<Input>> {
        let call = Call::new(&self.redis, &scripts::INPUT).with(id.as_str());
        let (media_type, blob, bytes): (Option<String>, _, _) = call.run("read an input").await?;
        media_type.map(|media_type| rows::input(id, media_type, blob, bytes)).transpose()
    }

    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>> {
        // Registered before the record is read, so that a job that ends in between is noticed.
        let notice = self.ended.of(id).await?;
        let (Some(record), _) = read(&self.redis, id).await? else { return Ok(stream::empty().boxed()) };
        if record.state.has_ended() {
            return Ok(stream::once(async { Ok(record) }).boxed());
        }
        let (redis, notices, id) = (self.redis.clone(), self.ended.clone(), id.clone());
        let ended = async move {
            let mut notice = notice;
            loop {
                notice.wait().await;
                // A lost connection wakes watchers too, and a job that ended may have been requeued since.
                let (next, record) = register_and_read(&redis, &notices, &id).await?;
                match record {
                    Some(record) if !record.state.has_ended() => notice = next,
                    ended => return Ok(ended),
                }
            }
        };
        let ended = stream::once(ended).filter_map(|record| async { record.transpose() });
        Ok(stream::once(async { Ok(record) }).chain(ended).boxed())
    }

    async fn due(&self, limit: usize) -> Result<Vec<DueJob>> {
        let call = self
            .ending(&scripts::DUE)
            .with(limit.min(CHUNK_ITEMS).to_string())
            .with(CHUNK_BYTES.to_string())
            .with_number(milliseconds_of(PUBLISH_TIMEOUT));
        let (answers, not_taken): (Vec<TakenJob>, Vec<String>) = call.run("take due jobs").await?;
        for id in not_taken {
            tracing::error!(
                id,
                "cannot take a due job: a key has a wrong type; the job ends as failed or stays as it is"
            );
        }
        let (mut due, mut unreadable) = (Vec::with_capacity(answers.len()), Vec::new());
        for (id, fence, fields, input) in answers {
            match due_job(&id, fence, (fields, input)) {
                Ok(job) => due.push(job),
                Err(error) => {
                    tracing::error!(id, %error, "cannot read a due job; it ends as failed");
                    unreadable.push(id);
                }
            }
        }
        if !unreadable.is_empty() {
            let call = self.ending(&scripts::END_UNREADABLE_JOBS);
            let call = unreadable.iter().fold(call, |call, id| call.with(id));
            // The jobs that can be read are taken already. The others are due again, so the next look repeats this.
            if let Err(error) = call.run::<()>("end unreadable jobs").await {
                tracing::warn!(%error, "cannot end due jobs that cannot be read");
            }
        }
        Ok(due)
    }

    async fn counts(&self, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
        counts::counts(&self.redis, pools).await
    }

    async fn arrivals(&self) -> Result<BoxStream<'static, Result<PoolName>>> {
        arrivals::follow(&self.redis).await
    }

    async fn hold_upkeep(&self, holder: &str, lease: Duration) -> Result<bool> {
        let call = Call::new(&self.redis, &scripts::HOLD_UPKEEP).with(holder).with_number(milliseconds_of(lease));
        call.run("hold the upkeep").await
    }

    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>> {
        let call = Call::new(&self.redis, &scripts::PURGE).with(limit.min(CHUNK_ITEMS).to_string());
        let (count, blobs): (usize, Vec<Vec<u8>>) = call.run("purge").await?;
        Ok((count > 0).then(|| rows::blobs_of_deleted(&blobs)))
    }

    async fn dead(&self, filter: &DeadFilter, after: Option<&DeadPosition>, limit: usize) -> Result<DeadPage> {
        dead::page(&self.redis, filter, after, limit).await
    }

    async fn requeue(&self, id: &JobId, input: Option<Input>) -> Result<Requeued> {
        dead::requeue(&self.redis, id, input.as_ref()).await
    }

    async fn forget(&self, id: &JobId) -> Result<Forgotten> {
        dead::forget(&self.redis, id).await
    }

    async fn purge_dead(&self, filter: &DeadFilter, limit: usize) -> Result<Purged> {
        dead::purge(&self.redis, filter, limit).await
    }

    async fn id(&self) -> Result<String> {
        let key = self.redis.key("ledger");
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(&key).arg(uuid::Uuid::now_v7().to_string()).arg("NX").ignore();
        pipeline.cmd("GET").arg(&key);
        let (id,): (String,) = self.redis.pipeline("read the id of the ledger", &pipeline).await?;
        Ok(id)
    }

    async fn blob_store(&self, found: Option<&str>) -> Result<Option<String>> {
        let key = self.redis.key("blob_store");
        let mut pipeline = redis::pipe();
        if let Some(found) = found {
            pipeline.cmd("SET").arg(&key).arg(found).arg("NX").ignore();
        }
        pipeline.cmd("GET").arg(&key);
        let (recorded,): (Option<String>,) = self.redis.pipeline("read the id of the blob store", &pipeline).await?;
        Ok(recorded)
    }

    async fn risks(&self) -> Result<Vec<Risk>> {
        self.redis.risks().await
    }

    async fn usage(&self) -> Result<Option<Usage>> {
        usage::usage(&self.redis).await
    }
}

/// The record of a job without its history, and the history as it is stored.
async fn read(redis: &Redis, id: &JobId) -> Result<(Option<JobRecord>, Vec<Vec<u8>>)> {
    let call = Call::new(redis, &scripts::GET).with(id.as_str());
    let (fields, output, attempts): (Fields, Option<Vec<u8>>, _) = call.run("read a job").await?;
    Ok((rows::record(id, (fields, output))?, attempts))
}

/// Registers for the next notice, then reads the record. Retries while a broken connection is made again.
async fn register_and_read(
    redis: &Redis,
    notices: &EndedNotices,
    id: &JobId,
) -> Result<(EndedNotice, Option<JobRecord>)> {
    let notice = notices.of(id).await?;
    let (start, mut backoff) = (Instant::now(), Backoff::default());
    loop {
        match read(redis, id).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && start.elapsed() < RECONNECT_TIMEOUT => {
                tracing::debug!(%error, "a watch cannot read its job; reading it again");
                // A server that loads its data answers at once, with the same error each time.
                tokio::time::sleep(backoff.next_delay()).await;
            }
            found => return found.map(|(record, _)| (notice, record)),
        }
    }
}

fn add_finish(call: &mut Call<'_>, Finish { lease, outcome }: &Finish) {
    call.add(lease.id.as_str());
    call.add_number(lease.fence);
    let (name, rest): (&str, [Vec<u8>; 3]) = match outcome {
        Outcome::Succeeded(output) => {
            let BodyColumns { body, blob } = BodyColumns::of(&output.body);
            let blob = blob.unwrap_or_default().into_bytes();
            ("succeeded", [output.media_type.clone().into_bytes(), blob, body.unwrap_or_default().to_vec()])
        }
        Outcome::Failed(error) => ("failed", [error.kind.clone().into(), error.message.clone().into(), Vec::new()]),
        Outcome::Retry { error, after } => {
            let after = milliseconds_of(*after).to_string();
            ("retry", [error.kind.clone().into(), error.message.clone().into(), after.into()])
        }
        Outcome::Released => ("released", [const { Vec::new() }; 3]),
    };
    call.add(name);
    rest.into_iter().for_each(|argument| call.add(argument));
}

fn bytes_of(body: &Body) -> usize {
    match body {
        Body::Inline(bytes) => bytes.len(),
        Body::Reference(_) => 0,
    }
}
