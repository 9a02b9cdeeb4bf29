//! Records a batch of jobs in the ledger, and publishes it to the broker.

use std::borrow::Cow;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use queue::{Error, ErrorKind, Job, Ledger, Producer, Publication, Result, Submitted};

use super::confirmations::Confirmations;
use super::{Accepted, IntakeError};
use crate::metrics;

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
        let submitted = self.submit(&jobs).await;
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
        jobs.into_iter().zip(submitted).map(&mut answer).collect()
    }

    /// The answer for one job. `published` returns the results of the jobs that were published, in order.
    fn answer(
        &self,
        job: Job,
        submitted: Result<Submitted>,
        published: &mut impl Iterator<Item = Result<()>>,
    ) -> std::result::Result<Accepted, IntakeError> {
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
        let is_input_used = publication.is_some();
        if let Some(publication) = publication {
            match published.next() {
                Some(Ok(())) => self.confirmations.send(publication),
                Some(Err(error)) => {
                    tracing::warn!(%error, job = %job.id, "the broker did not confirm a job");
                    return Err(IntakeError::NotConfirmed(job.id));
                }
                None => return Err(IntakeError::NoAnswer(job.id)),
            }
        }
        Ok(Accepted { job, existing, is_input_used })
    }

    async fn submit(&self, jobs: &[Job]) -> Vec<Result<Submitted>> {
        let submit = |jobs| {
            async move {
                let submitted = self.ledger.submit(jobs).await?;
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
        together(jobs, publish).await
    }
}

/// Makes one call for all jobs. If it fails because of some job, each job gets a call of its own.
async fn together<'a, T>(jobs: &'a [Job], call: impl Fn(&'a [Job]) -> BoxFuture<'a, Result<Vec<T>>>) -> Vec<Result<T>> {
    let error = match call(jobs).await {
        Ok(answers) => return answers.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    // These kinds are about the backend, so every further call would fail too, perhaps after a long time.
    if jobs.len() == 1 || matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Ended) {
        return jobs.iter().map(|_| Err(error.duplicate())).collect();
    }
    let alone = join_all(jobs.chunks(1).map(call)).await;
    let only = |answers: Result<Vec<T>>| {
        let none = || Error::new(ErrorKind::Corrupt, "a call for one job returned no answer");
        answers.and_then(|mut answers| answers.pop().ok_or_else(none))
    };
    alone.into_iter().map(only).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use queue::{Body, Class, Clock, Input, JobState};
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
        use IntakeError::{IdConflict, NotConfirmed};
        let [Ok(new), Err(NotConfirmed(refused)), Ok(again), Err(IdConflict(conflict)), Ok(other)] = &answers[..]
        else {
            panic!("{answers:?}");
        };
        assert_eq!((new.existing.is_none(), again.existing.is_some(), other.existing.is_none()), (true, true, true));
        assert_eq!((refused.as_str(), conflict.as_str(), other.job.id.as_str()), ("refused", "a", "b"));
        let stored = backend.ledger.get(&"refused".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(stored.state, JobState::Queued);
        let depth = backend.broker.gauge().await.unwrap().depths(&["text".parse().unwrap()]).await.remove(0).unwrap();
        // The repetition came before the confirmation, so it was published too. The ledger makes its effect happen once.
        assert_eq!(depth.waiting(), 3);
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
            let answers = together(&jobs, call).await;
            assert_eq!(calls.load(Ordering::SeqCst), calls_made, "{kind:?}");
            assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), failed, "{kind:?}");
            assert!(answers[1].is_err());
        }
    }
}
