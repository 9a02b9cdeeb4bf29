//! Mode `latency`: the number of workers that keeps jobs within a latency objective, from measurements.
//!
//! `μ` is the throughput of one worker in full batches, in jobs per second. The slack is how long a job may wait: the
//! objective minus the time of a full batch. A worker that is requested now is ready after the start time: the time until
//! its process registers and its cold start, both as measured. The number of workers is the largest of these terms:
//!
//! - *need*: the throughput with which the present arrivals would be in time, divided by `μ`. It follows from the arrivals
//!   of windows of several lengths, so it covers bursts without an assumption about their distribution.
//! - *trend*: the rate that is expected when a worker requested now is ready, divided by `μ`. Only a lasting rise makes a
//!   trend.
//! - *kept*: the largest need within the keep time. Workers are kept because a new start takes time and makes jobs late.
//!   The keep time is the cheapest one with which the past arrivals would have been in time, see the module `replay`.
//! - *catch up*: the need and the extra workers that end `x` jobs, see the module `replay`. `x` is the number of jobs
//!   that the workers present and on the way cannot end in
//!   time: the backlog plus the arrivals until a worker requested now is ready, minus the jobs done until then, minus the
//!   jobs done within the slack.
//! - *retain*: `backlog ÷ (μ × slack)`, at most the workers present and on the way. Workers stay until fewer can finish
//!   the backlog in time.
//! - 1 while there is work.
//!
//! Classes whose jobs may wait for much longer than a start are patient. Their jobs use the time in which the workers for
//! the other classes are idle, and their own term asks for more workers only if their objective is in danger.

mod demand;
mod replay;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::Serialize;

use crate::history::{History, LONGEST_WINDOW, Late, STUCK_COLD_STARTS};
use crate::keep::Keep;
use crate::reading::{Measurements, Reading};
use demand::Demand;
use replay::{Replay, extra_workers};

/// The assumed cold start, until a worker has measured one.
const UNKNOWN_COLD_START: Duration = Duration::from_secs(60);

/// The HPA asks at this interval, so a request may have to wait for it.
const SYNC_SECONDS: f64 = 15.0;

/// A class is patient if its jobs may wait for this number of starts.
const PATIENT_STARTS: f64 = 10.0;

/// The margin keeps the late jobs at this share of the allowed ones. The rest is for starts.
const STEERED_SHARE: f64 = 0.5;

/// The largest margin.
const MAX_MARGIN: f64 = 2.0;

/// The settings of the mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// How long a job of each class may take from its arrival to its end (in the order of [`queue::Class::ALL`]). `None`:
    /// no limit.
    pub objectives: [Option<Duration>; 3],
    /// The share of jobs that must meet the objective, in percent.
    pub percentile: f64,
    /// The least cold start that is assumed. Workers do not measure all of it on some clusters.
    pub cold_start: Option<Duration>,
    /// The maximum number of workers that are kept in a pool without arrivals. `None`: no limit.
    pub keep_warm: Option<u32>,
    /// What keeping workers may cost. `None`: no limit.
    pub max_worker_hours_per_day: Option<f64>,
}

/// The terms of the calculation, in workers unless a unit is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LatencyTerms {
    /// The mean rate of arrivals, in jobs per second. Jobs of patient classes that wait do not count.
    pub arrivals: f64,
    /// The rate that is expected when a worker requested now is ready, if the rate rises.
    pub expected_arrivals: Option<f64>,
    /// The throughput of one worker, in jobs per second. 0 before it is measured.
    pub throughput: f64,
    /// How long a job may wait, in seconds.
    pub slack_seconds: f64,
    /// How long a worker takes from its request until it is ready, in seconds.
    pub start_seconds: f64,
    /// The workers that were requested and have not registered.
    pub on_the_way: f64,
    /// The workers that have loaded for so long that they will hardly become ready.
    pub stuck: u64,
    /// The measured share of arrivals that had to wait longer than the slack.
    pub late_share: f64,
    /// The share of jobs that may be late.
    pub allowed_late_share: f64,
    /// The share that had to wait longer without a start as the reason.
    pub settled_late_share: f64,
    /// The factor on the workers for the present arrivals that follows from it.
    pub margin: f64,
    /// How long workers are kept.
    pub keep: Keep,
    /// Jobs over the capacity of the workers present and on the way, when a worker requested now is ready.
    pub excess: f64,
    /// The workers for the present arrivals.
    pub need: f64,
    /// The workers for the expected arrivals.
    pub trend: f64,
    /// The largest need within the keep time.
    pub kept: f64,
    /// The workers that also end the excess jobs.
    pub catch_up: f64,
    /// The workers present and on the way that the backlog still needs.
    pub retain: f64,
    /// The workers that end the waiting jobs of patient classes within their objectives.
    pub patient: f64,
    /// The largest of these terms, and at least 1 while there is work.
    pub wanted: f64,
}

impl LatencyTerms {
    /// Whether more jobs of at least an hour would have been late than the promise allows, however long workers are kept. A
    /// shorter time shows mostly the first start.
    pub fn cannot_keep_promise(&self) -> bool {
        let is_known = self.keep.replayed_seconds >= LONGEST_WINDOW.as_secs_f64();
        is_known && self.keep.least_late_share > self.allowed_late_share
    }

    /// Whether the pool keeps workers without having work for them.
    pub(crate) fn keeps_warm(&self) -> bool {
        self.kept > 0.0
    }
}

impl Latency {
    /// The strictest objective.
    pub fn objective(&self) -> Duration {
        self.objectives.iter().flatten().min().copied().unwrap_or_default()
    }

    /// The share of jobs that may be late.
    pub fn allowed_late_share(&self) -> f64 {
        1.0 - self.percentile / 100.0
    }

    /// A number for these settings, by which a result for other ones is recognized.
    fn hashed(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let budget = self.max_worker_hours_per_day.map(f64::to_bits);
        (self.objectives, self.percentile.to_bits(), self.cold_start, budget).hash(&mut hasher);
        hasher.finish()
    }

    fn is_patient(&self, start: Duration) -> [bool; 3] {
        let limit = self.objective().max(start.mul_f64(PATIENT_STARTS));
        self.objectives.map(|objective| objective.is_none_or(|objective| objective > limit))
    }

    /// The terms at the time of the last reading.
    pub fn terms(&self, history: &History) -> LatencyTerms {
        let Some(reading) = history.latest() else { return LatencyTerms::default() };
        let Measurements { batch_time, cold_start } = history.measurements();
        let cold_start =
            cold_start.or(self.cold_start).unwrap_or(UNKNOWN_COLD_START).max(self.cold_start.unwrap_or_default());
        let start = cold_start + history.registration().unwrap_or_default();
        let (stuck, _) = reading.fleet.loading_longer_than(cold_start * STUCK_COLD_STARTS);
        let mut terms = LatencyTerms {
            start_seconds: start.as_secs_f64(),
            on_the_way: history.on_the_way(),
            allowed_late_share: self.allowed_late_share(),
            stuck,
            ..LatencyTerms::default()
        };
        let work = if reading.backlog() > 0 { 1.0 } else { 0.0 };
        let Some(batch_time) = batch_time else {
            // The first worker measures the throughput. Before that, it is unknown whether further workers are useful,
            // and whether fewer suffice.
            terms.retain = if reading.backlog() > 0 { reading.fleet.ready_or_loading() as f64 } else { 0.0 };
            terms.wanted = terms.retain.max(work);
            return terms;
        };
        terms.throughput = batch_time.throughput();
        let full = batch_time.full_seconds();
        // If a full batch takes longer than the objective, there is no slack. Then one full batch may wait.
        terms.slack_seconds = (self.objective().as_secs_f64() - full).max(full);
        let patient = self.is_patient(start);
        let demand = Demand::new(history, patient, terms.slack_seconds);
        let workers = |rate: f64| rate / terms.throughput;
        terms.arrivals = demand.rate_now();
        terms.expected_arrivals = demand.expected(terms.start_seconds + SYNC_SECONDS);
        let late = |is_settled| {
            let with_batch = !patient[queue::Class::Batch as usize];
            history.late_share(Late { seconds: terms.slack_seconds, with_batch, is_settled })
        };
        (terms.late_share, terms.settled_late_share) = (late(false), late(true));
        terms.margin = self.margin(terms.settled_late_share);
        terms.need = workers(demand.needed_now()) * terms.margin;
        terms.trend = terms.expected_arrivals.map_or(0.0, workers);
        self.keep(&mut terms, &demand, history);
        let waiting = reading.waiting.iter().zip(patient).filter(|(_, is_patient)| *is_patient);
        let aside: u64 = waiting.map(|(jobs, _)| jobs).sum();
        let supply = Supply::new(history, reading, cold_start);
        self.catch_up(&mut terms, &demand, &supply, reading.backlog().saturating_sub(aside) as f64);
        terms.patient = self.patient(&terms, reading, patient);
        let largest = [terms.trend, terms.kept, terms.catch_up, terms.retain, terms.patient, work];
        terms.wanted = largest.into_iter().fold(terms.need, f64::max);
        // A stuck worker is one of the HPA's replicas, so it is requested on top. If no worker is ready, more of them
        // would only be stuck too.
        terms.wanted += terms.stuck.min(reading.fleet.ready) as f64;
        terms
    }

    /// The factor on the need: more workers if too many jobs were late although no worker was missing. The measured late
    /// jobs steer it, so it is right without a model of the reasons (Gibbs and Candès, *Adaptive conformal inference
    /// under distribution shift*, 2021).
    fn margin(&self, settled_late_share: f64) -> f64 {
        (settled_late_share / (STEERED_SHARE * self.allowed_late_share())).clamp(1.0, MAX_MARGIN)
    }

    /// The keep time, and the largest need within it.
    fn keep(&self, terms: &mut LatencyTerms, demand: &Demand, history: &History) {
        let Some(now) = demand.at.last().copied() else { return };
        let replay = Replay {
            demand,
            throughput: terms.throughput / terms.margin,
            slack: terms.slack_seconds,
            ready_in: terms.start_seconds + SYNC_SECONDS / 2.0,
            allowed: self.allowed_late_share(),
        };
        terms.keep = history.keep(self.hashed(), || replay.keep(terms.late_share, self.max_worker_hours_per_day));
        let since = now - terms.keep.seconds;
        let kept = demand.at.iter().zip(&demand.needed).rev().take_while(|(at, _)| **at >= since);
        terms.kept = kept.map(|(_, needed)| needed * terms.margin / terms.throughput).fold(0.0, f64::max);
        if let Some(most) = self.keep_warm
            && terms.arrivals == 0.0
        {
            terms.kept = terms.kept.min(f64::from(most));
        }
    }

    fn catch_up(&self, terms: &mut LatencyTerms, demand: &Demand, supply: &Supply, backlog: f64) {
        let start = terms.start_seconds;
        let within_slack = terms.throughput * terms.slack_seconds;
        let rate = terms.need * terms.throughput;
        // A rate that has lasted for some time is expected to last as long again.
        let seen = demand.seconds_of_rate(rate);
        let backlog_after = |seconds: f64, worked: f64| backlog + rate * seen.min(seconds) - worked * terms.throughput;
        let after_start = backlog_after(start, supply.ready * start + supply.worked_after_start);
        terms.excess = (after_start - supply.total() * within_slack).max(0.0);
        if supply.coming > 0.0 {
            // Until the workers on the way are ready, they are needed for the jobs that wait then.
            let until = start - supply.worked_after_start / supply.coming;
            let until_ready = backlog_after(until, supply.ready * until);
            terms.excess = terms.excess.max(until_ready - terms.need.max(supply.ready) * within_slack);
        }
        if terms.excess > 0.0 {
            let allowed = self.allowed_late_share();
            terms.catch_up = terms.need + extra_workers(terms.excess, rate, terms.throughput, start, allowed);
        }
        terms.retain = (backlog / within_slack).min(supply.total());
    }

    /// The workers that end the waiting jobs of patient classes within their objectives.
    fn patient(&self, terms: &LatencyTerms, reading: &Reading, patient: [bool; 3]) -> f64 {
        let classes =
            self.objectives.iter().enumerate().filter(|(class, _)| patient[*class] && reading.waiting[*class] > 0);
        let workers = classes.filter_map(|(class, objective)| {
            let waiting: u64 = reading.waiting[..=class].iter().sum();
            // Half of the time, so that a start and an error of the estimate fit into the other half.
            Some(waiting as f64 / (terms.throughput * (*objective)?.as_secs_f64() / 2.0))
        });
        workers.fold(0.0, f64::max)
    }
}

/// The workers that do or will do the work.
struct Supply {
    ready: f64,
    /// Loading workers that are not stuck, and workers on the way.
    coming: f64,
    /// The seconds for which the coming workers will have worked when a worker requested now is ready, added up.
    worked_after_start: f64,
}

impl Supply {
    fn new(history: &History, reading: &Reading, cold_start: Duration) -> Self {
        let fleet = &reading.fleet;
        let (stuck, stuck_for) = fleet.loading_longer_than(cold_start * STUCK_COLD_STARTS);
        let loading = fleet.loading.saturating_sub(stuck) as f64;
        // The loading time of a worker counts up to one cold start. A worker that takes longer will be ready soon.
        let loaded = fleet.loading_for.saturating_sub(stuck_for).as_secs_f64().min(loading * cold_start.as_secs_f64());
        let registration = history.registration().unwrap_or_default();
        let waited = history.oldest_request().unwrap_or_default().min(registration);
        let on_the_way = history.on_the_way();
        Self {
            ready: fleet.ready as f64,
            coming: loading + on_the_way,
            worked_after_start: loading * registration.as_secs_f64() + loaded + on_the_way * waited.as_secs_f64(),
        }
    }

    fn total(&self) -> f64 {
        self.ready + self.coming
    }
}
