//! From the history of a pool to the answer for KEDA. Pure arithmetic: the same history gives the same answer.

use jiff::Timestamp;
use serde::Serialize;

use crate::backlog::BacklogTerms;
use crate::history::History;
use crate::latency::LatencyTerms;
use crate::rate::RateTerms;
use crate::reading::Reading;
use crate::scaling::{Mode, Scaling};

/// The answer for a pool at one moment, and how it was computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The metric. Finite, at least 0.
    pub value: f64,
    /// The metric per worker, at least 0.001.
    pub target: f64,
    /// Whether the pool needs at least one worker.
    pub active: bool,
    /// The reason for `active`.
    pub active_because: &'static str,
    /// The terms of the calculation.
    #[serde(rename = "reckoning")]
    pub terms: Terms,
    /// The rules that changed the number of workers afterwards, in this order.
    pub clamps: Vec<Clamp>,
}

/// The terms of the calculation, by mode.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Terms {
    /// The parts of the backlog.
    Backlog(BacklogTerms),
    /// The numbers of workers of which the largest is used.
    Latency(LatencyTerms),
    /// The rates that are added.
    Rate(RateTerms),
}

/// A rule that changed the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Clamp {
    /// The name of the rule.
    pub rule: &'static str,
    /// The number of workers before it.
    pub from: f64,
    /// The number of workers after it.
    pub to: f64,
}

/// The decision for the last reading. `None`: there is no reading.
pub fn decide(history: &History, scaling: &Scaling, now: Timestamp) -> Option<Decision> {
    let reading = history.latest()?;
    let (terms, value) = match &scaling.mode {
        Mode::Backlog(backlog) => {
            let terms = backlog.terms(reading);
            (Terms::Backlog(terms), terms.total() as f64)
        }
        Mode::Latency(latency) => {
            let terms = latency.terms(history);
            (Terms::Latency(terms), terms.wanted)
        }
        Mode::Rate(rate) => {
            let terms = rate.terms(history);
            (Terms::Rate(terms), terms.value)
        }
    };
    let work = match terms {
        Terms::Backlog(terms) => terms.total(),
        _ => reading.backlog(),
    };
    let floor = scaling.floor(now);
    let keeps_warm = matches!(&terms, Terms::Latency(terms) if terms.keeps_warm());
    let (active, active_because) = active(history, reading, work, scaling.activation, floor, keeps_warm);
    let target = scaling.mode.target();
    let mut workers = WorkerCount { number: value / target, clamps: Vec::new() };
    workers.clamp(history, reading, scaling, floor);
    if active && matches!(scaling.mode, Mode::Latency(_)) {
        workers.at_least("active", 1.0);
    }
    // Without a clamp the value stays exact: a division and a multiplication could change its last digit.
    let value = if workers.clamps.is_empty() { value } else { workers.number * target };
    Some(Decision { value, target, active, active_because, terms, clamps: workers.clamps })
}

/// The field `active` of [`decide`], without the rest of the calculation where it is not needed.
pub fn is_active(history: &History, scaling: &Scaling, now: Timestamp) -> bool {
    let Some(reading) = history.latest() else { return false };
    let work = match &scaling.mode {
        Mode::Backlog(backlog) => backlog.terms(reading).total(),
        _ => reading.backlog(),
    };
    let keeps_warm = || match &scaling.mode {
        Mode::Latency(latency) => latency.terms(history).keeps_warm(),
        Mode::Backlog(_) | Mode::Rate(_) => false,
    };
    active(history, reading, work, scaling.activation, scaling.floor(now), false).0 || keeps_warm()
}

/// Whether the pool needs at least one worker, and the reason.
///
/// A lease keeps the pool active for every value of the activation, because its worker must not be stopped. A loading
/// worker also keeps the pool active: it was requested and would be requested again.
fn active(
    history: &History,
    reading: &Reading,
    work: u64,
    activation: f64,
    floor: u32,
    keeps_warm: bool,
) -> (bool, &'static str) {
    let reasons = [
        (work as f64 > activation, "there is work"),
        (reading.leased > 0 || reading.in_flight > 0, "a worker holds jobs"),
        (reading.fleet.loading > 0 && history.may_become_ready(), "a worker is loading"),
        (floor > 0, "the minimum is more than 0 workers"),
        (keeps_warm, "workers are kept for jobs that may come"),
    ];
    let reason = reasons.iter().find(|(holds, _)| *holds).map(|(_, reason)| *reason);
    (reason.is_some(), reason.unwrap_or("there is no work"))
}

/// A number of workers to which the rules are applied, one after the other.
struct WorkerCount {
    number: f64,
    clamps: Vec<Clamp>,
}

impl WorkerCount {
    fn clamp(&mut self, history: &History, reading: &Reading, scaling: &Scaling, floor: u32) {
        // After its start a scaler has too little history to reduce the number of workers. Its history does not contain
        // the reasons for the workers that it found, so these workers stay even longer.
        let present = reading.fleet.ready_or_loading() as f64;
        if history.span() < scaling.mode.required_history() {
            self.at_least("short_history", present);
        } else if history.span() < scaling.mode.look_back()
            && let Some(first) = history.points().next()
        {
            self.at_least("found_at_start", present.min(f64::from(first.workers)));
        }
        // This rule comes before the limits, so that they can undo this rise.
        if matches!(scaling.mode, Mode::Latency(_)) {
            self.exceed_tolerance(present, scaling.tolerance);
        }
        if let Some(most) = reading.max_consumers
            && !scaling.allows_idle_consumers
        {
            // A backlog needs one worker even if no consumer can receive jobs.
            self.at_most("max_consumers", most.max(1) as f64);
        }
        if let Some(most) = scaling.max {
            self.at_most("maxWorkers", f64::from(most));
        }
        self.at_least(if floor > scaling.min { "schedule" } else { "minWorkers" }, f64::from(floor));
    }

    fn at_least(&mut self, rule: &'static str, least: f64) {
        if self.number < least {
            self.set(rule, least);
        }
    }

    fn at_most(&mut self, rule: &'static str, most: f64) {
        if self.number > most {
            self.set(rule, most);
        }
    }

    /// Makes a rise just large enough for the HPA, which ignores a change within its tolerance. A fall within the
    /// tolerance does not change.
    fn exceed_tolerance(&mut self, present: f64, tolerance: f64) {
        // The HPA reads three decimals. So it ignores a smaller rise, and would remove the added worker again.
        let past = present * (1.0 + tolerance) + 0.01;
        let is_rise = (self.number * 1000.0).round() > present * 1000.0;
        if is_rise && tolerance > 0.0 {
            self.at_least("tolerance", past);
        }
    }

    fn set(&mut self, rule: &'static str, to: f64) {
        self.clamps.push(Clamp { rule, from: self.number, to });
        self.number = to;
    }
}

/// A target for clients that read integers only (KEDA up to 2.16). Rounded up, because a smaller target would ask for
/// too many workers. Never 0, because the client divides by it.
pub fn whole_target(target: f64) -> i64 {
    (target.ceil() as i64).max(1)
}

/// A value for clients that read integers only. Rounded up, so that it is 0 only when the value is 0.
pub fn whole_value(value: f64) -> i64 {
    value.ceil() as i64
}

#[cfg(test)]
mod tests;
