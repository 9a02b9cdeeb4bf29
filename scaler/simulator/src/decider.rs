//! The decision on the number of workers, by a policy behind KEDA and the HPA.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::history::History;
use policy::replicas::{CallFailure, Observation, Replicas, Rules};
use policy::{Decision, Scaling, TriggerError};

use super::conditions::Conditions;
use super::view::{View, clock};

/// Decides how many workers a pool has.
pub trait Decider {
    /// The time of the next decision.
    fn due(&self) -> Duration;

    /// The wanted number of workers, including loading ones.
    fn decide(&mut self, view: &View) -> u32;

    /// The wanted number of workers when a job arrives in a pool without jobs or without workers. This call comes
    /// outside of [`Decider::due`].
    fn on_arrival(&mut self, view: &View) -> u32 {
        view.present()
    }
}

/// The interval at which the scaler reads the pool.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A scaler behind KEDA and the HPA. KEDA and the HPA get their answers from the last reading, which may be as old as
/// the interval.
pub struct ScaledByKeda<F> {
    replicas: Replicas,
    history: History,
    next_sample: Duration,
    answer: F,
}

impl<F: FnMut(&History) -> Result<Observation, CallFailure>> ScaledByKeda<F> {
    /// A pool that begins without workers. `answer` is the scaler. The sampler and both loops have their first turn at
    /// once.
    pub fn new(rules: Rules, answer: F) -> Self {
        let replicas = Replicas::new(rules, 0, Duration::ZERO);
        Self { replicas, history: History::default(), next_sample: Duration::ZERO, answer }
    }

    /// The same, but the sampler and both loops have their first turns at times of their own.
    pub fn with_phases(rules: Rules, conditions: &Conditions, answer: F) -> Self {
        let phases = [rules.polling_interval, rules.sync_interval];
        let [poll, sync] = [conditions.phase(1, phases[0]), conditions.phase(2, phases[1])];
        let replicas = Replicas::with_phases(rules, 0, Duration::ZERO, poll, sync);
        let next_sample = conditions.phase(3, SAMPLE_INTERVAL);
        Self { replicas, history: History::default(), next_sample, answer }
    }
}

impl<F: FnMut(&History) -> Result<Observation, CallFailure>> Decider for ScaledByKeda<F> {
    fn due(&self) -> Duration {
        self.next_sample.min(self.replicas.due())
    }

    fn decide(&mut self, view: &View) -> u32 {
        if view.now >= self.next_sample {
            self.history.add(view.reading());
            self.next_sample = view.now + SAMPLE_INTERVAL;
        }
        if view.now < self.replicas.due() {
            return self.replicas.count();
        }
        let answer = (self.answer)(&self.history);
        if let Ok(answer) = &answer {
            self.history.request(view.now, answer.value / answer.target);
        }
        self.replicas.observe(view.now, answer)
    }

    fn on_arrival(&mut self, view: &View) -> u32 {
        // The push stream sends only changes: an active pool with a worker gets no message.
        if self.replicas.count() > 0 && self.history.latest().is_some_and(|reading| reading.backlog() > 0) {
            return self.replicas.count();
        }
        self.history.add(view.reading());
        let is_active = (self.answer)(&self.history).is_ok_and(|answer| answer.active);
        self.replicas.pushed(view.now, is_active)
    }
}

/// The scaler with the metadata of a trigger, behind KEDA and an HPA with these rules.
///
/// Unknown keys are ignored, because KEDA sends the whole map. For schedules a trace begins on a Monday at midnight,
/// UTC.
pub fn decider(
    metadata: &BTreeMap<String, String>,
    rules: Rules,
    conditions: &Conditions,
) -> Result<Box<dyn Decider>, TriggerError> {
    let scaling = Scaling::of_metadata(metadata)?;
    let answer = move |history: &History| {
        let now = history.latest().map_or(Duration::ZERO, |reading| reading.taken_at);
        let decision = policy::decide(history, &scaling, clock(now));
        let observation = |decision: Decision| Observation {
            active: decision.active,
            value: decision.value,
            target: decision.target,
        };
        decision.map(observation).ok_or(CallFailure::Metrics { target: scaling.mode.target() })
    };
    Ok(Box::new(ScaledByKeda::with_phases(rules, conditions, answer)))
}

#[cfg(test)]
mod tests {
    use policy::reading::Fleet;

    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn backlog(now: Duration, waiting: u64, ready: u32) -> View {
        View {
            now,
            waiting: [0, waiting, 0],
            arrived: waiting,
            fleet: Fleet { ready: ready.into(), ..Fleet::default() },
            ..View::default()
        }
    }

    /// Calls the decider with the same backlog for a minute, in which each loop has at least two turns.
    fn after_a_minute(decider: &mut dyn Decider, waiting: u64) -> u32 {
        let mut workers = 0;
        while decider.due() <= Duration::from_secs(60) {
            workers = decider.decide(&backlog(decider.due(), waiting, workers));
        }
        workers
    }

    #[test]
    fn a_backlog_gets_the_workers_that_the_value_asks_for_under_each_of_its_names() {
        for name in ["value", "lagThreshold", "queueLength"] {
            let pairs = [("pool", "digits"), ("scalerAddress", "a:1"), (name, "20")];
            let mut decider = decider(&metadata(&pairs), Rules::default(), &Conditions::default()).unwrap();
            assert_eq!(after_a_minute(&mut *decider, 100), 5, "{name}");
        }
    }

    #[test]
    fn a_backlog_up_to_the_activation_starts_no_worker() {
        for name in ["activationValue", "activationLagThreshold"] {
            let mut decider = decider(&metadata(&[(name, "100")]), Rules::default(), &Conditions::default()).unwrap();
            assert_eq!(after_a_minute(&mut *decider, 100), 0);
            assert_eq!(decider.on_arrival(&backlog(decider.due(), 101, 0)), 1, "{name}");
        }
    }

    #[test]
    fn every_mode_can_be_simulated_and_errors_name_their_key() {
        for pairs in [
            &[("mode", "latency"), ("latency", "5s")][..],
            &[("mode", "rate"), ("jobsPerSecond", "5")],
            &[("schedule", "0 0 * * 1 UTC for 1h = 2")],
        ] {
            let mut decider = decider(&metadata(pairs), Rules::default(), &Conditions::default()).unwrap();
            assert!(after_a_minute(&mut *decider, 10) >= 1, "{pairs:?}");
        }
        let error =
            decider(&metadata(&[("lagThreshold", "0")]), Rules::default(), &Conditions::default()).err().unwrap();
        assert_eq!(error.to_string(), "lagThreshold: \"0\" is not a number of at least 0.001");
    }

    #[test]
    fn under_a_constant_load_the_number_of_workers_becomes_stable() {
        use crate::pool::run;
        use crate::trace::Pattern;
        use crate::worker::Worker;

        const MINUTE: Duration = Duration::from_secs(60);
        let (batch_base, batch_item) = (Duration::from_millis(20), Duration::from_millis(10));
        let worker = Worker { cold_start: MINUTE, batch_base, batch_item, batch_limit: 8 };
        for (rate, seed) in [(20.0, 1), (60.0, 2), (130.0, 3), (300.0, 4)] {
            let trace = Pattern::Poisson { rate }.trace(MINUTE * 60, seed);
            let pairs = [("mode", "latency"), ("latency", "5s")];
            let mut decider =
                decider(&metadata(&pairs), Rules { max: 50, ..Rules::default() }, &Conditions::default()).unwrap();
            let outcome = run(&trace, worker, Duration::from_secs(5), &mut *decider);
            let settled = outcome.series.iter().filter(|view| (MINUTE * 20..MINUTE * 60).contains(&view.now));
            let counts: Vec<u32> = settled.map(|view| view.ready() + view.loading()).collect();
            let changes = counts.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(changes <= 2, "{changes} changes in 40 minutes at {rate}/s: {counts:?}");
        }
    }
}
