//! Properties of a policy, KEDA, the HPA and a pool together, under random loads in virtual time.

mod agreement;
mod constant;
mod loads;
mod outage;
mod promise;
mod work;

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use policy::history::History;
use policy::reading::Reading;
use policy::replicas::{CallFailure, Observation, Replicas, Rules};
use policy::{Decision, Scaling};
use proptest::test_runner::{Config, RngSeed};

use super::decider::Decider;
use super::view::View;

const SECOND: Duration = Duration::from_secs(1);

/// The maximum age of a reading, as in the default settings of the scaler.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The same cases in every run, because they take long. `PROPTEST_CASES` sets a number of random cases instead.
fn cases(count: u32) -> Config {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => Config { max_shrink_iters: 30, ..Config::default() },
        None => Config { rng_seed: RngSeed::Fixed(1), max_shrink_iters: 30, ..Config::with_cases(count) },
    }
}

/// One turn of KEDA or the HPA.
#[derive(Debug, Clone, Copy)]
struct Step {
    view: View,
    retry: u64,
    /// Whether the scaler had an answer.
    is_answered: bool,
    before: u32,
    after: u32,
}

impl Step {
    fn has_work(&self) -> bool {
        self.view.waiting() + self.view.leased + self.retry > 0
    }
}

/// The scaler, KEDA and the HPA over a pool, with a record of every turn. In contrast to
/// [`super::decider::ScaledByKeda`], its source can fail, and jobs can wait for a retry.
struct Probe {
    scaling: Scaling,
    replicas: Replicas,
    history: History,
    next_sample: Duration,
    /// The times in which the source does not answer.
    outages: Vec<Range<Duration>>,
    /// The times in which a number of jobs waits for a retry.
    retries: Vec<(Range<Duration>, u64)>,
    steps: Vec<Step>,
}

impl Probe {
    fn new(scaling: Scaling, rules: Rules) -> Self {
        let replicas = Replicas::new(rules, 0, Duration::ZERO);
        let (outages, retries, steps) = (Vec::new(), Vec::new(), Vec::new());
        Self { scaling, replicas, history: History::default(), next_sample: Duration::ZERO, outages, retries, steps }
    }

    fn retry(&self, now: Duration) -> u64 {
        self.retries.iter().filter(|(when, _)| when.contains(&now)).map(|(_, jobs)| jobs).sum()
    }

    fn read(&mut self, view: &View) {
        if !self.outages.iter().any(|outage| outage.contains(&view.now)) {
            self.history.add(Reading { retry: self.retry(view.now), ..view.reading() });
        }
    }

    fn answer(&self, now: Duration) -> Result<Observation, CallFailure> {
        let is_current = |reading: &Reading| now.saturating_sub(reading.taken_at) <= MAX_AGE;
        let current = self.history.latest().is_some_and(is_current).then_some(&self.history);
        let decision = current.and_then(|history| policy::decide(history, &self.scaling, Timestamp::UNIX_EPOCH));
        let failure = CallFailure::Metrics { target: self.scaling.mode.target() };
        let observation = |decision: Decision| Observation {
            active: decision.active,
            value: decision.value,
            target: decision.target,
        };
        decision.map(observation).ok_or(failure)
    }

    fn record(&mut self, view: &View, is_answered: bool, before: u32) -> u32 {
        let (retry, after) = (self.retry(view.now), self.replicas.count());
        self.steps.push(Step { view: *view, retry, is_answered, before, after });
        after
    }
}

impl Decider for Probe {
    fn due(&self) -> Duration {
        self.next_sample.min(self.replicas.due())
    }

    fn decide(&mut self, view: &View) -> u32 {
        self.read(view);
        self.next_sample = view.now + SECOND;
        if view.now < self.replicas.due() {
            return self.replicas.count();
        }
        let (answer, before) = (self.answer(view.now), self.replicas.count());
        if let Ok(answer) = &answer {
            self.history.request(view.now, answer.value / answer.target);
        }
        self.replicas.observe(view.now, answer);
        self.record(view, answer.is_ok(), before)
    }

    fn on_arrival(&mut self, view: &View) -> u32 {
        self.read(view);
        let (answer, before) = (self.answer(view.now), self.replicas.count());
        self.replicas.pushed(view.now, answer.is_ok_and(|answer| answer.active));
        self.record(view, answer.is_ok(), before)
    }
}
