//! From what has been seen of a pool to what KEDA is told. Pure arithmetic: the same history, the same answer.

use jiff::Timestamp;
use serde::Serialize;

use crate::backlog::Counted;
use crate::history::History;
use crate::latency::Needs;
use crate::rate::Arrivals;
use crate::reading::Reading;
use crate::scaling::{Mode, Scaling};

/// What is said of a pool at one moment, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The metric: finite, at least 0.
    pub value: f64,
    /// The metric for each worker, at least a thousandth.
    pub target: f64,
    /// Whether there is a reason to have a worker at all.
    pub active: bool,
    /// What that reason is.
    pub active_because: &'static str,
    /// How the number came about.
    pub reckoning: Reckoning,
    /// What was done to the number of workers afterwards, in this order.
    pub clamps: Vec<Clamp>,
}

/// How the number of workers came about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Reckoning {
    /// What was counted.
    Backlog(Counted),
    /// What is needed.
    Latency(Needs),
    /// What arrives.
    Rate(Arrivals),
}

/// A rule that changed the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Clamp {
    /// Its name.
    pub rule: &'static str,
    /// The number before it.
    pub from: f64,
    /// And after it.
    pub to: f64,
}

/// What the last reading says. `None`: there is none.
pub fn decide(history: &History, scaling: &Scaling, now: Timestamp) -> Option<Decision> {
    let reading = history.latest()?;
    let (reckoning, value) = match &scaling.mode {
        Mode::Backlog(backlog) => {
            let counted = backlog.counted(reading);
            (Reckoning::Backlog(counted), counted.total() as f64)
        }
        Mode::Latency(latency) => {
            let needs = latency.needs(history);
            (Reckoning::Latency(needs), needs.wanted)
        }
        Mode::Rate(rate) => {
            let arrivals = rate.arrivals(history);
            (Reckoning::Rate(arrivals), arrivals.value)
        }
    };
    let work = match reckoning {
        Reckoning::Backlog(counted) => counted.total(),
        _ => reading.backlog(),
    };
    let floor = scaling.floor(now);
    let (active, active_because) = active(reading, work, scaling.activation, floor);
    let target = scaling.mode.target();
    let mut workers = Workers { number: value / target, clamps: Vec::new() };
    workers.clamp(history, reading, scaling, floor);
    if active && matches!(scaling.mode, Mode::Latency(_)) {
        workers.at_least("active", 1.0);
    }
    // Where nothing was clamped the value is what was counted, to the last digit.
    let value = if workers.clamps.is_empty() { value } else { workers.number * target };
    Some(Decision { value, target, active, active_because, reckoning, clamps: workers.clamps })
}

/// Whether there is a reason to have a worker at all, as [`decide`] says it, without the rest.
pub fn is_active(reading: &Reading, scaling: &Scaling, now: Timestamp) -> bool {
    let work = match &scaling.mode {
        Mode::Backlog(backlog) => backlog.counted(reading).total(),
        _ => reading.backlog(),
    };
    active(reading, work, scaling.activation, scaling.floor(now)).0
}

/// Whether there is a reason to have a worker at all, and which.
///
/// A lease is a reason to stay whatever the activation, since its worker must not be stopped; so is a worker that
/// loads, since it was asked for and would be asked for again.
fn active(reading: &Reading, work: u64, activation: f64, floor: u32) -> (bool, &'static str) {
    let reasons = [
        (work as f64 > activation, "there is work"),
        (reading.leased > 0 || reading.in_flight > 0, "a worker holds jobs"),
        (reading.fleet.loading > 0, "a worker is loading"),
        (floor > 0, "the fewest workers are more than none"),
    ];
    let reason = reasons.iter().find(|(holds, _)| *holds).map(|(_, reason)| *reason);
    (reason.is_some(), reason.unwrap_or("there is nothing to do"))
}

/// A number of workers on its way through the rules.
struct Workers {
    number: f64,
    clamps: Vec<Clamp>,
}

impl Workers {
    fn clamp(&mut self, history: &History, reading: &Reading, scaling: &Scaling, floor: u32) {
        // A scaler that has just started knows no past that would let workers go, and for longer none of what those that it
        // found there were asked for.
        let staying = reading.fleet.staying() as f64;
        if history.span() < scaling.mode.needs_history_of() {
            self.at_least("short_history", staying);
        } else if history.span() < scaling.mode.remembers()
            && let Some(first) = history.points().next()
        {
            self.at_least("found_at_start", staying.min(f64::from(first.workers)));
        }
        // Before the limits: a rise that they leave no room for is not made.
        if matches!(scaling.mode, Mode::Latency(_)) {
            self.past_the_dead_band(staying, scaling.tolerance);
        }
        if let Some(most) = reading.max_consumers
            && !scaling.allows_idle_consumers
        {
            // Work that is there needs a worker, however few could share it.
            self.at_most("max_consumers", most.max(1) as f64);
        }
        if let Some(most) = scaling.max {
            self.at_most("maxWorkers", f64::from(most));
        }
        self.at_least(if floor > scaling.min { "schedule" } else { "minWorkers" }, f64::from(floor));
    }

    fn at_least(&mut self, rule: &'static str, least: f64) {
        if self.number < least {
            self.becomes(rule, least);
        }
    }

    fn at_most(&mut self, rule: &'static str, most: f64) {
        if self.number > most {
            self.becomes(rule, most);
        }
    }

    /// Makes a rise that the HPA would take for nothing just large enough for it. A fall within the band is left alone: more
    /// than is needed is dear, fewer are too few.
    fn past_the_dead_band(&mut self, present: f64, tolerance: f64) {
        // The HPA sees three decimals, so what is less above is no rise to it: it would take away again what was added for that.
        let past = present * (1.0 + tolerance) + 0.01;
        let is_rise = (self.number * 1000.0).round() > present * 1000.0;
        if is_rise && tolerance > 0.0 {
            self.at_least("tolerance", past);
        }
    }

    fn becomes(&mut self, rule: &'static str, to: f64) {
        self.clamps.push(Clamp { rule, from: self.number, to });
        self.number = to;
    }
}

/// A target for clients that know integers only (KEDA up to 2.16): rounded up, since a smaller one asks for more workers
/// than there is work for, and never 0, by which they would divide.
pub fn whole_target(target: f64) -> i64 {
    (target.ceil() as i64).max(1)
}

/// A value for clients that know integers only: rounded up, so that it is 0 only when there is nothing.
pub fn whole_value(value: f64) -> i64 {
    value.ceil() as i64
}

#[cfg(test)]
mod tests;
