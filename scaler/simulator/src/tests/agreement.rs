//! Scalers that look at one pool at different moments say nearly the same, one of them started anew too.
//!
//! Whom KEDA asks is chance, so what two of them say must not differ by more than what happened between their looks. That
//! is counted here in jobs, by how a reading that is a moment later, and points that are kept at other moments, can change
//! a term: at most so many jobs lie between two points that a history keeps, whichever they are.
//!
//! One that was started anew lets nobody go before it has seen enough. In mode latency that is two minutes, and those that it
//! found there stay for the twenty that it replays; in between it may say fewer than the other for those that came since, or
//! more. Nor is anything asserted of two of which one looks back further: the share of late jobs is at its limit then.

use std::time::Duration;

use policy::history::{History, LONGEST_WINDOW};
use policy::latency::Needs;
use policy::{Decision, Mode, Reckoning, Scaling};
use proptest::prelude::*;

use super::loads::{any_load, any_worker, defaults, metadata};
use super::{Probe, SECOND, cases};
use crate::decider::Decider;
use crate::pool::run;
use crate::trace::{Arrival, Trace};
use crate::view::View;

/// The points of a window lie no further apart, and a second between two readings, and one between two scalers.
const APART: Duration = Duration::from_secs(7);

/// Nor do the oldest.
const FAR_APART: Duration = Duration::from_secs(32);

/// One scaler, through which the pool is scaled, and another that reads it at other moments.
struct Pair {
    leads: Probe,
    other: Probe,
    /// When the other one is started anew.
    restart: Option<Duration>,
    restarted: Option<Duration>,
    over: Duration,
    moments: Vec<Moment>,
}

/// What both said at a moment at which KEDA or the HPA asked.
struct Moment {
    now: Duration,
    said: [Decision; 2],
    histories: [History; 2],
    is_restarted_since: Option<Duration>,
}

impl Decider for Pair {
    fn due(&self) -> Duration {
        self.leads.due().min(self.other.next_sample)
    }

    fn decide(&mut self, view: &View) -> u32 {
        if view.now >= self.other.next_sample {
            if self.restart.is_some_and(|restart| view.now >= restart) {
                self.restarted = self.restart.take();
                self.other.history = History::default();
            }
            self.other.look(view);
            self.other.next_sample = view.now + SECOND;
        }
        let is_asked = view.now >= self.leads.replicas.due();
        if view.now >= self.leads.due() {
            self.leads.decide(view);
        }
        if is_asked {
            let says = |probe: &Probe| policy::decide(&probe.history, &probe.scaling, jiff::Timestamp::UNIX_EPOCH);
            if let (Some(one), Some(other)) = (says(&self.leads), says(&self.other)) {
                self.moments.push(Moment {
                    now: view.now,
                    said: [one, other],
                    histories: [self.leads.history.clone(), self.other.history.clone()],
                    is_restarted_since: self.restarted,
                });
            }
        }
        if view.now >= self.over { 0 } else { self.leads.replicas.count() }
    }

    fn woken(&mut self, view: &View) -> u32 {
        self.other.look(view);
        self.leads.woken(view)
    }
}

/// The most jobs that arrive within `apart`, of those that arrive from `since` until `until`.
fn most_jobs(trace: &Trace, apart: Duration, since: Duration, until: Duration) -> f64 {
    let first = trace.jobs.partition_point(|job| job.at < since);
    let jobs = &trace.jobs[first..trace.jobs.partition_point(|job| job.at <= until)];
    let together = |(place, job): (usize, &Arrival)| jobs[place..].partition_point(|later| later.at <= job.at + apart);
    jobs.iter().enumerate().map(together).max().unwrap_or(0) as f64
}

impl Moment {
    /// How far both look back, if they agree on that.
    fn looks_back(&self) -> Option<f64> {
        let [one, other] = [0, 1].map(|place| match &self.said[place].reckoning {
            Reckoning::Latency(needs) => needs.look_back_seconds,
            Reckoning::Backlog(_) | Reckoning::Rate(_) => 0.0,
        });
        (one == other).then_some(one)
    }

    /// How far apart the two may be, in units of the value.
    fn bound(&self, trace: &Trace, mode: &Mode) -> f64 {
        let [one, other] = [0, 1].map(|place| self.histories[place].latest().unwrap());
        let backlog = one.backlog().abs_diff(other.backlog()) as f64;
        let most = |apart, past: Duration| most_jobs(trace, apart, self.now.saturating_sub(past + apart), self.now);
        match mode {
            Mode::Backlog(_) => backlog,
            // At either end of the window.
            Mode::Rate(rate) => (backlog + 2.0 * most(APART, rate.window)) / rate.window.as_secs_f64(),
            Mode::Latency(latency) => {
                let needs: [&Needs; 2] = [0, 1].map(|place| match &self.said[place].reckoning {
                    Reckoning::Latency(needs) => needs,
                    _ => unreachable!("another mode"),
                });
                let (throughput, slack) = (needs[0].throughput, needs[0].slack_seconds);
                let window = latency.stable_window.as_secs_f64();
                let rate = 2.0 * most(APART, latency.stable_window + latency.scale_down_delay) / window;
                let replay = 1.0 + most(FAR_APART, LONGEST_WINDOW) / (throughput * slack);
                // The shortest of the panic windows.
                let sudden = 2.0 * most(SECOND * 2, latency.panic_window) / (latency.panic_window.as_secs_f64() / 4.0);
                let arrivals = rate.max(sudden);
                let (ahead, recovery) = (needs[0].cold_start_seconds, (needs[0].cold_start_seconds / 2.0).max(slack));
                // Workers that came or went between the two looks.
                let fleet =
                    one.fleet.staying().abs_diff(other.fleet.staying()) + one.fleet.ready.abs_diff(other.fleet.ready);
                let done = fleet as f64 * throughput * (ahead + slack)
                    + throughput * (one.fleet.loading + other.fleet.loading) as f64;
                let growth = arrivals / throughput + (backlog + arrivals * ahead + done) / (throughput * recovery);
                let keep = backlog / (throughput * slack) + fleet as f64;
                [rate / throughput, replay, growth, keep].into_iter().fold(1.0, f64::max)
            }
        }
    }
}

fn any_mode() -> impl Strategy<Value = Scaling> {
    let of = |pairs: &[(&str, &str)]| Scaling::of_metadata(&metadata(pairs)).unwrap();
    prop_oneof![
        Just(of(&[("value", "1")])),
        Just(of(&[("mode", "rate"), ("jobsPerSecond", "1")])),
        // The tolerance makes a small difference as large as itself.
        (1..30_u32).prop_map(move |latency| {
            of(&[("mode", "latency"), ("latency", &format!("{latency}s")), ("tolerance", "0")])
        }),
    ]
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn replicas_differ_by_no_more_than_what_happened_between_their_looks_and_after_a_quiet_time_not_at_all(
        mut trace in any_load(),
        worker in any_worker(),
        scaling in any_mode(),
        phase in 0_u64..1000,
        restart in prop::option::of(0_u64..600),
    ) {
        // One more, after a time in which all is forgotten.
        let last = trace.length + LONGEST_WINDOW + SECOND * 60 * 15;
        trace.jobs.push(Arrival { at: last, work: 1.0 });
        trace.length = last;
        let rules = policy::replicas::Rules { min: 1, ..defaults() };
        let mut other = Probe::new(scaling.clone(), rules.clone());
        other.next_sample = Duration::from_millis(phase);
        let restart = restart.map(|restart| SECOND * restart as u32);
        let leads = Probe::new(scaling.clone(), rules);
        let mut pair = Pair { leads, other, restart, restarted: None, over: last, moments: Vec::new() };
        run(&trace, worker, SECOND * 5, &mut pair);

        let needs_history = scaling.mode.needs_history_of();
        let remembers = match scaling.mode {
            Mode::Latency(_) => LONGEST_WINDOW + SECOND * 60,
            _ => needs_history,
        };
        let mut forgotten = 0;
        for moment in &pair.moments {
            let [one, other] = &moment.said;
            let (now, age) = (moment.now, moment.is_restarted_since.map(|at| moment.now.saturating_sub(at)));
            let mut is_short = false;
            for (history, said) in moment.histories.iter().zip(&moment.said) {
                if history.span() < needs_history {
                    is_short = true;
                    let staying = history.latest().unwrap().fleet.staying() as f64;
                    prop_assert!(said.value / said.target >= staying, "{now:?}: {said:?}");
                }
            }
            if is_short || age.is_some_and(|age| age < remembers + SECOND) {
                continue;
            }
            if moment.looks_back().is_none() {
                continue;
            }
            let bound = moment.bound(&trace, &scaling.mode) + 1e-6;
            prop_assert!((one.value - other.value).abs() <= bound, "{now:?}: {one:?} {other:?}: more than {bound}");
            let last_change = trace.jobs[..trace.jobs.len() - 1].last().map_or(Duration::ZERO, |job| job.at);
            let is_quiet = moment.histories.iter().all(|history| {
                history.points().next().is_some_and(|first| first.at > last_change)
                    && history.points().all(|point| point.backlog == 0)
            });
            if is_quiet && now < last {
                forgotten += 1;
                prop_assert_eq!((one.value, one.active), (other.value, other.active));
            }
        }
        prop_assert!(forgotten > 0);
    }
}
