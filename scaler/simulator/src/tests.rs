//! What holds of a policy, KEDA, the HPA and a pool together, whatever the load, in virtual time.

mod agreement;
mod constant;
mod loads;
mod outage;
mod work;

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use policy::Scaling;
use policy::history::History;
use policy::reading::Reading;
use policy::replicas::{Failure, Observation, Replicas, Rules};
use proptest::test_runner::{Config, RngSeed};

use super::decider::Decider;
use super::view::View;

const SECOND: Duration = Duration::from_secs(1);

/// Older readings are not spoken of, as the scaler's settings have it.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The same cases in every run, since one takes long; `PROPTEST_CASES` asks for so many others.
fn cases(count: u32) -> Config {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => Config { max_shrink_iters: 30, ..Config::default() },
        None => Config { rng_seed: RngSeed::Fixed(1), max_shrink_iters: 30, ..Config::with_cases(count) },
    }
}

/// What one turn was like.
#[derive(Debug, Clone, Copy)]
struct Step {
    view: View,
    retry: u64,
    /// Whether the scaler could say anything.
    is_known: bool,
    before: u32,
    after: u32,
}

impl Step {
    fn has_work(&self) -> bool {
        self.view.waiting + self.view.leased + self.retry > 0
    }
}

/// The scaler, KEDA and the HPA over a pool, every turn written down. Unlike [`super::decider::Scaled`] its source can fail,
/// and jobs can wait for a retry, which those of the simulated pool never do.
struct Probe {
    scaling: Scaling,
    replicas: Replicas,
    history: History,
    next_sample: Duration,
    /// When the source does not answer.
    away: Vec<Range<Duration>>,
    /// When so many jobs wait for a retry.
    retries: Vec<(Range<Duration>, u64)>,
    steps: Vec<Step>,
}

impl Probe {
    fn new(scaling: Scaling, rules: Rules) -> Self {
        let replicas = Replicas::new(rules, 0, Duration::ZERO);
        let (away, retries, steps) = (Vec::new(), Vec::new(), Vec::new());
        Self { scaling, replicas, history: History::default(), next_sample: Duration::ZERO, away, retries, steps }
    }

    fn retry(&self, now: Duration) -> u64 {
        self.retries.iter().filter(|(when, _)| when.contains(&now)).map(|(_, jobs)| jobs).sum()
    }

    fn look(&mut self, view: &View) {
        if !self.away.iter().any(|away| away.contains(&view.now)) {
            self.history.add(Reading { retry: self.retry(view.now), ..view.reading() });
        }
    }

    fn answer(&self, now: Duration) -> Result<Observation, Failure> {
        let is_fresh = |reading: &Reading| now.saturating_sub(reading.taken_at) <= MAX_AGE;
        let fresh = self.history.latest().is_some_and(is_fresh).then_some(&self.history);
        let decision = fresh.and_then(|history| policy::decide(history, &self.scaling, Timestamp::UNIX_EPOCH));
        let failure = Failure::Metrics { target: self.scaling.mode.target() };
        decision.map(|said| Observation { active: said.active, value: said.value, target: said.target }).ok_or(failure)
    }

    fn write(&mut self, view: &View, is_known: bool, before: u32) -> u32 {
        let (retry, after) = (self.retry(view.now), self.replicas.count());
        self.steps.push(Step { view: *view, retry, is_known, before, after });
        after
    }
}

impl Decider for Probe {
    fn due(&self) -> Duration {
        self.next_sample.min(self.replicas.due())
    }

    fn decide(&mut self, view: &View) -> u32 {
        self.look(view);
        self.next_sample = view.now + SECOND;
        if view.now < self.replicas.due() {
            return self.replicas.count();
        }
        let (answer, before) = (self.answer(view.now), self.replicas.count());
        self.replicas.observe(view.now, answer);
        self.write(view, answer.is_ok(), before)
    }

    fn woken(&mut self, view: &View) -> u32 {
        self.look(view);
        let (answer, before) = (self.answer(view.now), self.replicas.count());
        self.replicas.pushed(view.now, answer.is_ok_and(|seen| seen.active));
        self.write(view, answer.is_ok(), before)
    }
}
