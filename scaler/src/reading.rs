//! What is known of a pool at one moment.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// A pool, read once. All answers about one moment are made from one reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// When the first of its reads began: it says nothing of what came later.
    pub taken_at: Instant,
    /// Deliveries that nobody holds.
    pub waiting: u64,
    /// Deliveries in a worker's hands, as far as the broker can tell.
    pub in_flight: u64,
    /// Jobs in the broker, for all that the ledger knows.
    pub queued: u64,
    /// Jobs under a worker's lease.
    pub leased: u64,
    /// Jobs that wait in the ledger for their retry, or to be published again.
    pub retry: u64,
    /// Workers alive.
    pub workers: u64,
    /// Those of them whose model is not ready yet.
    pub loading: u64,
}

impl Reading {
    /// The work that is there, in jobs.
    ///
    /// Broker and ledger both count, and each misses some. Only the broker knows the messages of producers that do not
    /// write to the ledger. Only the ledger knows the jobs that a worker has received and not claimed yet, where the
    /// broker does not count what it has handed out. Most jobs are in both counts, so the larger stands for them.
    pub fn backlog(&self) -> u64 {
        let by_broker = self.waiting.saturating_add(self.in_flight.max(self.leased));
        let by_ledger = self.queued.saturating_add(self.leased);
        by_broker.max(by_ledger).saturating_add(self.retry)
    }
}

/// The last that was heard of a pool.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// The last reading that succeeded.
    pub(crate) reading: Option<Reading>,
    /// Why the reading after that one failed, if it did.
    pub(crate) failure: Option<Failure>,
}

impl Sample {
    /// The reading, unless it is missing or older than `max_age`: an answer from nothing would be 0, and 0 stops workers.
    pub(crate) fn fresh(&self, now: Instant, max_age: Duration) -> Result<&Reading, Unknown> {
        let Some(reading) = &self.reading else {
            return Err(Unknown { age: None, failure: self.failure.clone() });
        };
        let age = now.saturating_duration_since(reading.taken_at);
        if age > max_age {
            return Err(Unknown { age: Some((age, max_age)), failure: self.failure.clone() });
        }
        Ok(reading)
    }
}

/// Why a reading failed, in words that may be shown to anybody: no address and no text of a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `ledger`, `gauge` or `roster`.
    pub(crate) source: &'static str,
    /// What came of it.
    pub(crate) reason: String,
}

/// Nothing can be said of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unknown {
    age: Option<(Duration, Duration)>,
    failure: Option<Failure>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.age {
            Some((age, max_age)) => {
                write!(
                    f,
                    "the last reading is {:.1} s old, more than {:.1} s",
                    age.as_secs_f64(),
                    max_age.as_secs_f64()
                )?;
            }
            None => f.write_str("there is no reading yet")?,
        }
        match &self.failure {
            Some(Failure { source, reason }) => write!(f, ": the {source} {reason}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(waiting: u64, in_flight: u64, leased: u64, retry: u64) -> Reading {
        Reading { taken_at: Instant::now(), waiting, in_flight, queued: 0, leased, retry, workers: 0, loading: 0 }
    }

    #[test]
    fn the_backlog_counts_a_job_in_a_workers_hands_once() {
        assert_eq!(reading(0, 0, 0, 0).backlog(), 0);
        assert_eq!(reading(5, 3, 3, 2).backlog(), 10);
        // Received and not claimed yet; a broker that does not count.
        assert_eq!(reading(5, 3, 0, 2).backlog(), 10);
        assert_eq!(reading(5, 0, 3, 2).backlog(), 10);
        // The same where the ledger knows better: the three are received and still queued.
        assert_eq!(Reading { queued: 8, ..reading(5, 0, 0, 2) }.backlog(), 10);
        assert_eq!(Reading { queued: 1, ..reading(5, 0, 3, 2) }.backlog(), 10);
    }

    #[test]
    fn a_reading_that_is_missing_or_too_old_is_not_spoken_of() {
        let max_age = Duration::from_secs(10);
        let mut sample = Sample::default();
        let now = Instant::now();
        assert_eq!(sample.fresh(now, max_age).unwrap_err().to_string(), "there is no reading yet");

        sample.reading = Some(reading(1, 0, 0, 0));
        let taken_at = sample.reading.as_ref().unwrap().taken_at;
        assert!(sample.fresh(taken_at + max_age, max_age).is_ok());
        sample.failure = Some(Failure { source: "gauge", reason: "did not answer within 2s".to_owned() });
        let late = taken_at + max_age + Duration::from_millis(100);
        assert_eq!(
            sample.fresh(late, max_age).unwrap_err().to_string(),
            "the last reading is 10.1 s old, more than 10.0 s: the gauge did not answer within 2s"
        );
    }
}
