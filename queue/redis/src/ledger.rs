//! What became of every job, in Redis.
//!
//! As durable as Redis is configured: what a call has written survives a crash of the server with `appendonly yes` and
//! `appendfsync always`; with `everysec` up to the last second may be lost, and with replicas what the new primary had
//! not received yet. Such a job's publication survives in the broker all the same, and its next claim opens it anew.
//!
//! The keys of an installation, after its prefix:
//!
//! | key | type | what |
//! |---|---|---|
//! | `job:ID` | hash | a job's record, narrow fields only |
//! | `input:ID`, `output:ID` | string | the bytes, where they are not in the blob store |
//! | `due` | sorted set | jobs by when somebody must publish them (again), leases that run out included |
//! | `over` | sorted set | ended jobs by when their retention is over |
//! | `open:POOL` | hash | how many jobs wait for what, and how many have ended |
//! | `attempts:ID` | list | the failed attempts at a job, as JSON |
//! | `dead`, `failed`, `dead:POOL`, `failed:POOL` | sorted set | jobs that ended badly by when, over all pools and of one |
//! | `ended` | channel | ids of jobs that have just ended, separated by spaces |
//! | `arrived` | channel | pools that may just have got work, separated by spaces |
//!
//! Every change is a script, so it happens as a whole, in one round trip, by the server's clock. When the server's memory
//! is full only [`Ledger::submit`] fails: what is there can be worked off, which takes a little more than `maxmemory`.

mod arrivals;
mod channel;
mod counts;
mod dead;
mod endings;
mod rows;
mod scripts;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::Instant;

use self::endings::{Ending, Endings};
use self::rows::{Fields, Row};
use self::scripts::{Call, PIECE_BYTES, PIECE_ITEMS, pieces};
use crate::connection::{Redis, backoff};
use queue::driver::BodyColumns;
use queue::driver::milliseconds_of;
use queue::{BlobRef, Body, Error, ErrorKind, Input, Job, JobId, PoolName, Result, Risk, WorkerId};
use queue::{
    Claim, ClaimRequest, DeadFilter, DeadPage, DeadPosition, DueJob, Finish, Finished, Forgotten, JobCounts, JobRecord,
    Lease, Ledger, Outcome, Publication, Purged, Requeued, Submitted,
};

/// How long after a submission (or after it was given out as due) a job that nobody has confirmed is due.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a watch bears that the server cannot be reached.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct RedisLedger {
    redis: Redis,
    endings: Endings,
}

impl RedisLedger {
    pub(crate) fn new(redis: Redis) -> Self {
        let endings = Endings::new(redis.clone());
        Self { redis, endings }
    }

    async fn claim_piece(
        &self,
        worker: &WorkerId,
        requests: &[(&ClaimRequest, bool)],
        lease: Duration,
    ) -> Result<Vec<Claimed>> {
        let mut call = Call::new(&self.redis).with(worker.as_str()).with_number(milliseconds_of(lease));
        for (request, with_job) in requests {
            call.add(request.job.id.as_str());
            call.add_number(u8::from(request.redelivered));
            call.add(request.token());
            call.add_number(u8::from(*with_job));
            if *with_job {
                call.add_job(&request.job);
            }
        }
        let answers: Vec<(String, u64, u32)> = call.run("claim", &scripts::CLAIM).await?;
        same_length(requests.len(), &answers)?;
        let claimed = |((request, _), (what, number, attempt)): (&(&ClaimRequest, bool), (String, u64, u32))| {
            let lease = || Lease { id: request.job.id.clone(), fence: number, attempt };
            Ok(Some(match what.as_str() {
                "go" => Claim::Granted { lease: lease(), alone: false },
                "alone" => Claim::Granted { lease: lease(), alone: true },
                "ended" => Claim::Ended(rows::state(number.try_into().unwrap_or(-1))?),
                "held" => Claim::HeldElsewhere,
                _ => return Ok(None),
            }))
        };
        requests.iter().zip(answers).map(claimed).collect()
    }
}

/// The answer to one claim; `None` where there is no such job.
type Claimed = Option<Claim>;

#[async_trait]
impl Ledger for RedisLedger {
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        let mut submitted = Vec::with_capacity(jobs.len());
        for jobs in pieces(jobs, |job| bytes_of(&job.input.body)) {
            let mut call = Call::new(&self.redis).with_number(milliseconds_of(PUBLISH_TIMEOUT));
            jobs.iter().for_each(|job| call.add_job(job));
            let answers: Vec<(u8, Option<u64>, Fields, Option<Vec<u8>>)> = call.run("submit", &scripts::SUBMIT).await?;
            same_length(jobs.len(), &answers)?;
            for (job, (what, fence, fields, output)) in jobs.iter().zip(answers) {
                submitted.push(match (what, rows::record(&job.id, (fields, output))?) {
                    (0, _) => Submitted::New,
                    (2, Some(record)) => Submitted::Existing {
                        record: Box::new(record),
                        publish: fence.map(|fence| Publication { id: job.id.clone(), fence }),
                    },
                    _ => Submitted::Conflict,
                });
            }
        }
        Ok(submitted)
    }

    async fn published(&self, publications: &[Publication]) -> Result<()> {
        for publications in pieces(publications, |_| 0) {
            let mut call = Call::new(&self.redis);
            for Publication { id, fence } in publications {
                call.add(id.as_str());
                call.add_number(*fence);
            }
            call.run::<()>("note publications", &scripts::PUBLISHED).await?;
        }
        Ok(())
    }

    async fn claim(&self, worker: &WorkerId, requests: Vec<ClaimRequest>, lease: Duration) -> Result<Vec<Claim>> {
        let mut claims: Vec<Claimed> = Vec::with_capacity(requests.len());
        // Most jobs are known, and then their inputs need not travel.
        let by_id: Vec<_> = requests.iter().map(|request| (request, false)).collect();
        for piece in pieces(&by_id, |_| 0) {
            claims.extend(self.claim_piece(worker, piece, lease).await?);
        }
        let unknown: Vec<usize> = (0..claims.len()).filter(|index| claims[*index].is_none()).collect();
        let whole: Vec<_> = unknown.iter().map(|index| (&requests[*index], true)).collect();
        let mut opened = Vec::with_capacity(unknown.len());
        for piece in pieces(&whole, |(request, _)| bytes_of(&request.job.input.body)) {
            opened.extend(self.claim_piece(worker, piece, lease).await?);
        }
        for (index, claim) in unknown.into_iter().zip(opened) {
            claims[index] = claim;
        }
        let answers: Option<Vec<Claim>> = claims.into_iter().collect();
        answers.ok_or_else(|| Error::new(ErrorKind::Corrupt, "redis does not know a job that was just opened"))
    }

    async fn begin(&self, lease: &Lease) -> Result<bool> {
        Call::new(&self.redis).with(lease.id.as_str()).with_number(lease.fence).run("begin", &scripts::BEGIN).await
    }

    async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<bool>> {
        let mut renewed = Vec::with_capacity(leases.len());
        for leases in pieces(leases, |_| 0) {
            let mut call = Call::new(&self.redis).with_number(milliseconds_of(lease));
            for lease in leases {
                call.add(lease.id.as_str());
                call.add_number(lease.fence);
            }
            let answers: Vec<bool> = call.run("renew leases", &scripts::RENEW).await?;
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
        for finishes in pieces(&finishes, bytes) {
            let mut call = Call::new(&self.redis);
            finishes.iter().for_each(|finish| add_finish(&mut call, finish));
            let answers: Vec<i64> = call.run("finish", &scripts::FINISH).await?;
            same_length(finishes.len(), &answers)?;
            for code in answers {
                finished.push(if code < 0 { Finished::LeaseLost } else { Finished::Recorded(rows::state(code)?) });
            }
        }
        Ok(finished)
    }

    async fn cancel(&self, id: &JobId) -> Result<Option<JobRecord>> {
        let row: Row = Call::new(&self.redis).with(id.as_str()).run("cancel", &scripts::CANCEL).await?;
        rows::record(id, row)
    }

    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        let (record, attempts) = read(&self.redis, id).await?;
        let Some(record) = record else { return Ok(None) };
        Ok(Some(JobRecord { history: rows::history(id, &attempts)?, ..record }))
    }

    async fn input(&self, id: &JobId) -> Result<Option<Input>> {
        let call = Call::new(&self.redis).with(id.as_str());
        let (media_type, blob, bytes): (Option<String>, _, _) = call.run("read an input", &scripts::INPUT).await?;
        media_type.map(|media_type| rows::input(id, media_type, blob, bytes)).transpose()
    }

    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>> {
        // Registered before the first look, so that no ending falls between the two.
        let ending = self.endings.of(id).await?;
        let (Some(record), _) = read(&self.redis, id).await? else { return Ok(stream::empty().boxed()) };
        if record.state.has_ended() {
            return Ok(stream::once(async { Ok(record) }).boxed());
        }
        let (redis, endings, id) = (self.redis.clone(), self.endings.clone(), id.clone());
        let ended = async move {
            let mut ending = ending;
            loop {
                ending.wait().await;
                // A lost connection wakes waiters too, and what has ended may have been requeued since.
                let (again, record) = look_again(&redis, &endings, &id).await?;
                match record {
                    Some(record) if !record.state.has_ended() => ending = again,
                    ended => return Ok(ended),
                }
            }
        };
        let ended = stream::once(ended).filter_map(|record| async { record.transpose() });
        Ok(stream::once(async { Ok(record) }).chain(ended).boxed())
    }

    async fn due(&self, limit: usize) -> Result<Vec<DueJob>> {
        let call = Call::new(&self.redis)
            .with(limit.min(PIECE_ITEMS).to_string())
            .with(PIECE_BYTES.to_string())
            .with_number(milliseconds_of(PUBLISH_TIMEOUT));
        let answers: Vec<(String, u64, Fields, Option<Vec<u8>>)> = call.run("take due jobs", &scripts::DUE).await?;
        let due = |(id, fence, fields, input): (String, u64, Fields, Option<Vec<u8>>)| {
            let id: JobId = id.parse()?;
            let job = rows::job(&id, (fields, input))?;
            Ok(DueJob { job, publication: Publication { id, fence } })
        };
        // One that cannot be read must not keep the others back for ever.
        let readable = |due: Result<DueJob>| {
            due.inspect_err(|error| tracing::error!(%error, "a due job cannot be read and is not published")).ok()
        };
        Ok(answers.into_iter().map(due).filter_map(readable).collect())
    }

    async fn counts(&self, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
        counts::counts(&self.redis, pools).await
    }

    async fn arrivals(&self) -> Result<BoxStream<'static, Result<PoolName>>> {
        arrivals::follow(&self.redis).await
    }

    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>> {
        let call = Call::new(&self.redis).with(limit.min(PIECE_ITEMS).to_string());
        let (count, blobs): (usize, Vec<Vec<u8>>) = call.run("purge", &scripts::PURGE).await?;
        Ok((count > 0).then(|| rows::blobs_of_the_forgotten(&blobs)))
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

    async fn risks(&self) -> Result<Vec<Risk>> {
        self.redis.risks().await
    }
}

/// The record of a job without its history, and that as it is stored.
async fn read(redis: &Redis, id: &JobId) -> Result<(Option<JobRecord>, Vec<Vec<u8>>)> {
    let call = Call::new(redis).with(id.as_str());
    let (fields, output, attempts): (Fields, Option<Vec<u8>>, _) = call.run("read a job", &scripts::GET).await?;
    Ok((rows::record(id, (fields, output))?, attempts))
}

/// Registers anew, then looks, as a watch does at first. A connection that broke is given the time to be made again.
async fn look_again(redis: &Redis, endings: &Endings, id: &JobId) -> Result<(Ending, Option<JobRecord>)> {
    let ending = endings.of(id).await?;
    let (start, mut failures) = (Instant::now(), 0);
    loop {
        match read(redis, id).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && start.elapsed() < RECONNECT_TIMEOUT => {
                tracing::debug!(%error, "a watch cannot look at its job; looking again");
                failures += 1;
                // A server that loads its data answers at once, and always the same.
                tokio::time::sleep(backoff(failures)).await;
            }
            found => return found.map(|(record, _)| (ending, record)),
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

/// A script answers each question.
fn same_length<T>(questions: usize, answers: &[T]) -> Result<()> {
    if questions == answers.len() {
        return Ok(());
    }
    let message = format!("redis gave {} answers to {questions} questions", answers.len());
    Err(Error::new(ErrorKind::Corrupt, message))
}
