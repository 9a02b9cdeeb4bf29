//! Records a batch of jobs in the ledger, and publishes it to the broker. Where both are one store, this is one call.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use queue::{
    Claim, ClaimRequest, Error, ErrorKind, Finish, Forgotten, Job, JobErrorKind, Ledger, Outcome, Producer,
    Publication, Result, Submitted, WorkerId,
};

use super::confirmations::Confirmations;
use super::{Accepted, IntakeError};
use crate::metrics;

/// The lease on a job that the broker refuses, while its record is deleted.
const FORGET_WITHIN: Duration = Duration::from_secs(30);

/// Records and publishes jobs. A job that fails does not fail the other jobs of its batch, unless the ledger or the broker
/// is unavailable.
pub(super) struct Acceptor {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) producer: Arc<dyn Producer>,
    pub(super) confirmations: Confirmations,
}

impl Acceptor {
    /// Accepts the jobs; one answer per job, in order.
    pub(super) async fn accept(&self, jobs: Vec<Job>) -> Vec<std::result::Result<Accepted, IntakeError>> {
        let store = self.ledger.store();
        if store.is_some() && store == self.producer.store() {
            let (submitted, is_repeated) = self.submit(&jobs, Call::SubmitAndPublish).await;
            let accepted = |(job, submitted)| {
                let (accepted, _) = opened(job, submitted)?;
                // The failed call may have opened this record, with this input.
                Ok(Accepted { is_input_used: accepted.is_input_used || is_repeated, ..accepted })
            };
            return jobs.into_iter().zip(submitted).map(accepted).collect();
        }
        let (submitted, _) = self.submit(&jobs, Call::Submit).await;
        let is_published = |submitted: &Result<Submitted>| {
            matches!(submitted, Ok(Submitted::New | Submitted::Existing { publish: Some(_), .. }))
        };
        let publishing = if submitted.iter().all(is_published) {
            Cow::Borrowed(&jobs[..])
        } else {
            let publishing = jobs.iter().zip(&submitted).filter(|(_, submitted)| is_published(submitted));
            Cow::Owned(publishing.map(|(job, _)| job.clone()).collect())
        };
        let mut published = self.publish(&publishing).await.into_iter();
        drop(publishing);
        let mut answer = |(job, submitted)| self.answer(job, submitted, &mut published);
        let mut answers: Vec<_> = jobs.into_iter().zip(submitted).map(&mut answer).collect();
        join_all(answers.iter_mut().filter_map(|answer| answer.as_mut().err()).map(|error| self.refused(error))).await;
        answers
    }

    /// Deletes the record of a job that the broker refuses, if this submission opened it. Otherwise an earlier message of
    /// the job may be in the broker. If the record stays, upkeep ends the job as failed.
    async fn refused(&self, error: &mut IntakeError) {
        let IntakeError::Unpublishable { job, source, is_input_used } = error else { return };
        if *is_input_used {
            match self.forget(job, source).await {
                Ok(is_forgotten) => *is_input_used = !is_forgotten,
                Err(error) => tracing::warn!(%error, job = %job.id, "cannot delete the record of a refused job"),
            }
        }
    }

    async fn forget(&self, job: &Job, why: &Error) -> Result<bool> {
        let request = ClaimRequest::new(job.clone(), false);
        let claim = self.ledger.claim(&WorkerId::new("gateway"), vec![request], FORGET_WITHIN).await?.pop();
        // Otherwise the job has ended, or a worker has it: its message is in the broker after all.
        let Some(Claim::Granted { lease, .. }) = claim else { return Ok(false) };
        let error = JobErrorKind::Unpublishable.error(why.to_string());
        self.ledger.finish(vec![Finish { lease, outcome: Outcome::Failed(error) }]).await?;
        // The submission deletes its input.
        Ok(matches!(self.ledger.forget(&job.id).await?, Forgotten::Forgotten(_)))
    }

    /// The answer for one job. `published` returns the results of the jobs that were published, in order.
    fn answer(
        &self,
        job: Job,
        submitted: Result<Submitted>,
        published: &mut impl Iterator<Item = Result<()>>,
    ) -> std::result::Result<Accepted, IntakeError> {
        let (accepted, publication) = opened(job, submitted)?;
        if let Some(publication) = publication {
            match published.next() {
                Some(Ok(())) => self.confirmations.send(publication),
                Some(Err(error)) if error.kind() == ErrorKind::Refused => {
                    let (job, is_input_used) = (Box::new(accepted.job), accepted.existing.is_none());
                    return Err(IntakeError::Unpublishable { job, source: error, is_input_used });
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, job = %accepted.job.id, "the broker did not confirm a job");
                    return Err(IntakeError::NotConfirmed(accepted.job.id));
                }
                None => return Err(IntakeError::NoAnswer(accepted.job.id)),
            }
        }
        Ok(accepted)
    }

    async fn submit(&self, jobs: &[Job], call: Call) -> (Vec<Result<Submitted>>, bool) {
        let submit = |jobs| {
            async move {
                let submitted = match call {
                    Call::Submit => self.ledger.submit(jobs).await?,
                    Call::SubmitAndPublish => self.ledger.submit_and_publish(jobs).await?,
                };
                if submitted.len() != jobs.len() {
                    let message =
                        format_args!("the ledger returned {} answers for {} jobs", submitted.len(), jobs.len());
                    return Err(Error::new(ErrorKind::Corrupt, message));
                }
                Ok(submitted)
            }
            .boxed()
        };
        together(jobs, submit).await
    }

    async fn publish(&self, jobs: &[Job]) -> Vec<Result<()>> {
        if jobs.is_empty() {
            return Vec::new();
        }
        let publish = |jobs| {
            async move {
                self.producer.publish(jobs).await?;
                Ok(vec![(); jobs.len()])
            }
            .boxed()
        };
        together(jobs, publish).await.0
    }
}

/// The call by which a ledger opens records.
#[derive(Debug, Clone, Copy)]
enum Call {
    Submit,
    SubmitAndPublish,
}

/// A job with a record, and its publication if that is missing, or was missing until [`Call::SubmitAndPublish`].
fn opened(job: Job, submitted: Result<Submitted>) -> std::result::Result<(Accepted, Option<Publication>), IntakeError> {
    let (publication, existing) = match submitted {
        Ok(Submitted::New) => {
            metrics::submitted(&job.pool, job.class, "new");
            metrics::input_bytes(&job.pool, &job.input.body);
            (Some(Publication::first(job.id.clone())), None)
        }
        Ok(Submitted::Existing { record, publish }) => {
            metrics::submitted(&job.pool, job.class, "known");
            (publish, Some(*record))
        }
        Ok(Submitted::Conflict) => {
            metrics::submitted(&job.pool, job.class, "conflict");
            return Err(IntakeError::IdConflict(job.id));
        }
        Err(source) => return Err(IntakeError::Ledger { id: job.id, source }),
    };
    Ok((Accepted { job, existing, is_input_used: publication.is_some() }, publication))
}

/// Makes one call for all jobs. If it fails because of some job, each job gets a call of its own. Also returns whether that
/// happened.
async fn together<'a, T>(
    jobs: &'a [Job],
    call: impl Fn(&'a [Job]) -> BoxFuture<'a, Result<Vec<T>>>,
) -> (Vec<Result<T>>, bool) {
    let error = match call(jobs).await {
        Ok(answers) => return (answers.into_iter().map(Ok).collect(), false),
        Err(error) => error,
    };
    // These kinds are about the backend, so every further call would fail too, perhaps after a long time.
    if jobs.len() == 1 || matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Ended) {
        return (jobs.iter().map(|_| Err(error.duplicate())).collect(), false);
    }
    let alone = join_all(jobs.chunks(1).map(call)).await;
    let only = |answers: Result<Vec<T>>| {
        let none = || Error::new(ErrorKind::Corrupt, "a call for one job returned no answer");
        answers.and_then(|mut answers| answers.pop().ok_or_else(none))
    };
    (alone.into_iter().map(only).collect(), true)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use queue::{Body, Class, Clock, Input, JobState, Submitted};
    use queue_embedded::StoreOptions;

    use super::super::confirmations;
    use super::*;

    fn job(id: &str, body: &'static str) -> Job {
        Job {
            id: id.parse().unwrap(),
            pool: "text".parse().unwrap(),
            class: Class::Standard,
            input: Input { media_type: "text/plain".to_owned(), body: Body::Inline(body.into()) },
            created_at: Clock::default().now(),
            deadline_at: None,
            max_attempts: 2,
            retention: Duration::from_secs(60),
            trace_parent: None,
            origin: None,
        }
    }

    /// A producer that refuses every call with a job of the id `refused`.
    struct Refusing(Arc<dyn Producer>);

    #[async_trait]
    impl Producer for Refusing {
        async fn publish(&self, jobs: &[Job]) -> Result<()> {
            if jobs.iter().any(|job| job.id.as_str() == "refused") {
                return Err(Error::new(ErrorKind::Refused, "the test asked for it"));
            }
            self.0.publish(jobs).await
        }
    }

    #[tokio::test]
    async fn each_job_of_a_batch_has_its_own_answer() {
        let folder = tempfile::tempdir().unwrap();
        let backend = queue_embedded::open(&StoreOptions::new(folder.path()), Clock::default()).unwrap();
        let producer = Arc::new(Refusing(backend.broker.producer().await.unwrap()));
        let (confirmations, _writer) = confirmations::channel(Arc::clone(&backend.ledger));
        let acceptor = Acceptor { ledger: Arc::clone(&backend.ledger), producer, confirmations };
        let batch = [("a", "1"), ("refused", "1"), ("a", "1"), ("a", "2"), ("b", "1")];
        let answers = acceptor.accept(batch.map(|(id, body)| job(id, body)).into()).await;
        use IntakeError::{IdConflict, Unpublishable};
        let [Ok(new), Err(Unpublishable { job, .. }), Ok(again), Err(IdConflict(conflict)), Ok(other)] = &answers[..]
        else {
            panic!("{answers:?}");
        };
        assert_eq!((new.existing.is_none(), again.existing.is_some(), other.existing.is_none()), (true, true, true));
        assert_eq!((job.id.as_str(), conflict.as_str(), other.job.id.as_str()), ("refused", "a", "b"));
        assert_eq!(backend.ledger.get(&"refused".parse().unwrap()).await.unwrap(), None);
        let depth = backend.broker.gauge().await.unwrap().depths(&["text".parse().unwrap()]).await.remove(0).unwrap();
        // The repetition came before the confirmation, so it was published too. The ledger makes its effect happen once.
        assert_eq!(depth.waiting(), 3);
    }

    /// The record of a job that an earlier submission may have published is not deleted.
    #[tokio::test]
    async fn a_refused_repetition_does_not_delete_the_record_of_the_first_submission() {
        let folder = tempfile::tempdir().unwrap();
        let backend = queue_embedded::open(&StoreOptions::new(folder.path()), Clock::default()).unwrap();
        let first = job("refused", "1");
        assert_eq!(backend.ledger.submit(std::slice::from_ref(&first)).await.unwrap(), [Submitted::New]);
        let producer = Arc::new(Refusing(backend.broker.producer().await.unwrap()));
        let (confirmations, _writer) = confirmations::channel(Arc::clone(&backend.ledger));
        let acceptor = Acceptor { ledger: Arc::clone(&backend.ledger), producer, confirmations };
        let answers = acceptor.accept(vec![first]).await;
        assert!(matches!(answers[..], [Err(IntakeError::Unpublishable { is_input_used: false, .. })]), "{answers:?}");
        let stored = backend.ledger.get(&"refused".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(stored.state, JobState::Queued);
    }

    #[tokio::test]
    async fn a_batch_is_recorded_published_and_confirmed_in_one_call_where_broker_and_ledger_are_one_store() {
        let folder = tempfile::tempdir().unwrap();
        let backend = queue_embedded::open(&StoreOptions::new(folder.path()), Clock::default()).unwrap();
        let producer = backend.broker.producer().await.unwrap();
        let (confirmations, writer) = confirmations::channel(Arc::clone(&backend.ledger));
        let acceptor = Acceptor { ledger: Arc::clone(&backend.ledger), producer, confirmations };
        backend.ledger.submit(&[job("unpublished", "1")]).await.unwrap();
        let batch = [("a", "1"), ("a", "1"), ("a", "2"), ("unpublished", "1"), ("b", "1")];
        let answers = acceptor.accept(batch.map(|(id, body)| job(id, body)).into()).await;
        let [Ok(new), Ok(again), Err(IntakeError::IdConflict(_)), Ok(unpublished), Ok(other)] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!(
            [new, again, unpublished, other].map(|accepted| accepted.existing.is_some()),
            [false, true, true, false]
        );
        assert_eq!([new, again, unpublished, other].map(|accepted| accepted.is_input_used), [true, false, true, true]);
        let depth = backend.broker.gauge().await.unwrap().depths(&["text".parse().unwrap()]).await.remove(0).unwrap();
        assert_eq!(depth.waiting(), 3);
        for submitted in backend.ledger.submit(&[job("b", "1"), job("unpublished", "1")]).await.unwrap() {
            assert!(matches!(submitted, Submitted::Existing { publish: None, .. }), "{submitted:?}");
        }
        assert_eq!(writer.waiting(), 0);
    }

    #[tokio::test]
    async fn an_error_about_some_job_fails_that_job_only_and_an_outage_is_not_tried_again() {
        let jobs: Vec<Job> = ["a", "bad", "c"].map(|id| job(id, "1")).into();
        for (kind, calls_made, failed) in [
            (ErrorKind::Refused, 4, 1),
            (ErrorKind::Denied, 4, 1),
            (ErrorKind::Full, 4, 1),
            (ErrorKind::Corrupt, 4, 1),
            (ErrorKind::Unavailable, 1, 3),
        ] {
            let calls = AtomicUsize::new(0);
            let call = |jobs: &'_ [Job]| {
                calls.fetch_add(1, Ordering::SeqCst);
                let is_bad = jobs.iter().any(|job| job.id.as_str() == "bad");
                let answer = if is_bad { Err(Error::new(kind, "bad")) } else { Ok(vec![(); jobs.len()]) };
                async move { answer }.boxed()
            };
            let (answers, is_repeated) = together(&jobs, call).await;
            assert_eq!(is_repeated, calls_made > 1);
            assert_eq!(calls.load(Ordering::SeqCst), calls_made, "{kind:?}");
            assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), failed, "{kind:?}");
            assert!(answers[1].is_err());
        }
    }
}
