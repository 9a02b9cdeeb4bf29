//! Replicas of the scaler that read a pool at different times give nearly the same answers, also after a restart.
//!
//! KEDA calls any replica. So the answers of two replicas may differ only by the jobs between their readings. The bound
//! here is in jobs: it follows from the effect of a later reading, and of points at other times, on each term. It uses
//! the largest number of jobs between two successive points of a history.
//!
//! After a restart a replica does not reduce the number of workers before its history is long enough. In mode latency
//! that is two minutes. Workers that it found at its start stay for twenty minutes, and the keep time that it computes
//! from a shorter history may be another one. So the test does not compare the answers of the replicas before both have a
//! whole history. It does not compare them either if they keep workers for different times, because then two times are
//! equally good.

use std::time::Duration;

use policy::history::{History, LONGEST_HISTORY, LONGEST_WINDOW};
use policy::latency::LatencyTerms;
use policy::{Decision, Mode, Scaling, Terms};
use proptest::prelude::*;
use queue::Class;

use super::loads::{any_load, any_worker, defaults, metadata};
use super::{Probe, SECOND, cases};
use crate::decider::Decider;
use crate::pool::run;
use crate::trace::{Arrival, Trace};
use crate::view::View;

/// The maximum distance between two points of a window, plus one second between readings and one between replicas.
const DISTANCE: Duration = Duration::from_secs(7);

/// A scaler that scales the pool, and a replica of it that reads the pool at other times.
struct Pair {
    leader: Probe,
    replica: Probe,
    /// When the replica restarts.
    restart: Option<Duration>,
    restarted: Option<Duration>,
    /// The time between the load and the quiet moments, in which nothing is compared.
    waits: std::ops::Range<Duration>,
    end: Duration,
    moments: Vec<Moment>,
}

/// The decisions of both at a turn of KEDA or the HPA.
struct Moment {
    now: Duration,
    decisions: [Decision; 2],
    histories: [History; 2],
    restarted_at: Option<Duration>,
}

impl Decider for Pair {
    fn due(&self) -> Duration {
        self.leader.due().min(self.replica.next_sample)
    }

    fn decide(&mut self, view: &View) -> u32 {
        if view.now >= self.replica.next_sample {
            if self.restart.is_some_and(|restart| view.now >= restart) {
                self.restarted = self.restart.take();
                self.replica.history = History::default();
            }
            self.replica.read(view);
            self.replica.next_sample = view.now + SECOND;
        }
        let is_turn = view.now >= self.leader.replicas.due();
        if view.now >= self.leader.due() {
            self.leader.decide(view);
        }
        if is_turn && !self.waits.contains(&view.now) {
            let decide = |probe: &Probe| policy::decide(&probe.history, &probe.scaling, jiff::Timestamp::UNIX_EPOCH);
            if let (Some(one), Some(other)) = (decide(&self.leader), decide(&self.replica)) {
                self.moments.push(Moment {
                    now: view.now,
                    decisions: [one, other],
                    histories: [self.leader.history.clone(), self.replica.history.clone()],
                    restarted_at: self.restarted,
                });
            }
        }
        if view.now >= self.end { 0 } else { self.leader.replicas.count() }
    }

    fn on_arrival(&mut self, view: &View) -> u32 {
        self.replica.read(view);
        self.leader.on_arrival(view)
    }
}

/// The maximum number of jobs within `distance`, among the arrivals from `since` until `until`.
fn max_jobs(trace: &Trace, distance: Duration, since: Duration, until: Duration) -> f64 {
    let first = trace.jobs.partition_point(|job| job.at < since);
    let jobs = &trace.jobs[first..trace.jobs.partition_point(|job| job.at <= until)];
    let together =
        |(place, job): (usize, &Arrival)| jobs[place..].partition_point(|later| later.at <= job.at + distance);
    jobs.iter().enumerate().map(together).max().unwrap_or(0) as f64
}

impl Moment {
    /// Whether both keep workers for the same time, with the same margin and the same trend.
    fn keeps_alike(&self) -> bool {
        let [one, other] = [0, 1].map(|place| match &self.decisions[place].terms {
            Terms::Latency(terms) => Some((terms.keep.seconds, terms.margin, terms.expected_arrivals.is_some())),
            Terms::Backlog(_) | Terms::Rate(_) => None,
        });
        one == other
    }

    /// The maximum difference between the two decisions, in units of the value.
    fn bound(&self, trace: &Trace, mode: &Mode) -> f64 {
        let [one, other] = [0, 1].map(|place| self.histories[place].latest().unwrap());
        let backlog = one.backlog().abs_diff(other.backlog()) as f64;
        let most = |distance, past: Duration| {
            let since = self.now.saturating_sub(past + distance);
            max_jobs(trace, distance, since, self.now)
        };
        match mode {
            Mode::Backlog(_) => backlog,
            // At both ends of the window.
            Mode::Rate(rate) => (backlog + 2.0 * most(DISTANCE, rate.window)) / rate.window.as_secs_f64(),
            Mode::Latency(_) => {
                let terms: [&LatencyTerms; 2] = [0, 1].map(|place| match &self.decisions[place].terms {
                    Terms::Latency(terms) => terms,
                    _ => unreachable!("another mode"),
                });
                let (throughput, slack, start) = (terms[0].throughput, terms[0].slack_seconds, terms[0].start_seconds);
                // The shortest window of arrivals, whose jobs may be in another interval, with the chance of a rise.
                let need = 1.0 + 2.0 * most(SECOND * 2, LONGEST_WINDOW) / (throughput * (1.0 + slack));
                // Workers that started or stopped between the two readings.
                let present = one.fleet.ready_or_loading().abs_diff(other.fleet.ready_or_loading());
                let fleet = (present + one.fleet.ready.abs_diff(other.fleet.ready)) as f64;
                let excess = backlog + need * throughput * start + fleet * throughput * (start + slack);
                let extra =
                    |excess: f64| ((need * throughput + excess / (2.0 * start)) * excess / (0.05 * start)).sqrt();
                let catch_up = need + extra(excess) / throughput;
                let retain = backlog / (throughput * slack) + fleet;
                catch_up.max(retain)
            }
        }
    }
}

fn any_mode() -> impl Strategy<Value = Scaling> {
    let of = |pairs: &[(&str, &str)]| Scaling::of_metadata(&metadata(pairs)).unwrap();
    prop_oneof![
        Just(of(&[("value", "1")])),
        Just(of(&[("mode", "rate"), ("jobsPerSecond", "1")])),
        // Without a tolerance: a tolerance would turn a small difference into a difference of its own size.
        (1..30_u32).prop_map(move |latency| {
            of(&[("mode", "latency"), ("latency", &format!("{latency}s")), ("tolerance", "0")])
        }),
    ]
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn replicas_differ_only_by_the_jobs_between_their_readings_and_not_at_all_after_a_quiet_time(
        mut trace in any_load(),
        worker in any_worker(),
        scaling in any_mode(),
        phase in 0_u64..1000,
        restart in prop::option::of(0_u64..600),
    ) {
        // One more job, after a time in which all points are dropped.
        let last = trace.length + LONGEST_HISTORY + SECOND * 60 * 15;
        let waits = trace.length + LONGEST_WINDOW..last - SECOND * 60 * 10;
        trace.jobs.push(Arrival { at: last, work: 1.0, class: Class::Standard });
        trace.length = last;
        let rules = policy::replicas::Rules { min: 1, ..defaults() };
        let mut replica = Probe::new(scaling.clone(), rules.clone());
        replica.next_sample = Duration::from_millis(phase);
        let restart = restart.map(|restart| SECOND * restart as u32);
        let leader = Probe::new(scaling.clone(), rules);
        let mut pair = Pair { leader, replica, restart, restarted: None, waits, end: last, moments: Vec::new() };
        run(&trace, worker, SECOND * 5, &mut pair);

        let required_history = scaling.mode.required_history();
        let look_back = match scaling.mode {
            Mode::Latency(_) => LONGEST_HISTORY,
            _ => required_history,
        };
        let mut quiet_moments = 0;
        for moment in &pair.moments {
            let [one, other] = &moment.decisions;
            let (now, age) = (moment.now, moment.restarted_at.map(|at| moment.now.saturating_sub(at)));
            let mut is_short = false;
            for (history, decision) in moment.histories.iter().zip(&moment.decisions) {
                if history.span() < required_history {
                    is_short = true;
                    let present = history.latest().unwrap().fleet.ready_or_loading() as f64;
                    prop_assert!(decision.value / decision.target >= present, "{now:?}: {decision:?}");
                }
            }
            if is_short || age.is_some_and(|age| age < look_back + SECOND) {
                continue;
            }
            let last_change = trace.jobs[..trace.jobs.len() - 1].last().map_or(Duration::ZERO, |job| job.at);
            let is_quiet = moment.histories.iter().all(|history| {
                history.points().next().is_some_and(|first| first.at > last_change)
                    && history.points().all(|point| point.backlog == 0)
            });
            if is_quiet && now < last {
                quiet_moments += 1;
                prop_assert_eq!((one.value, one.active), (other.value, other.active));
            }
            if !moment.keeps_alike() {
                continue;
            }
            let bound = moment.bound(&trace, &scaling.mode) + 1e-6;
            prop_assert!((one.value - other.value).abs() <= bound, "{now:?}: {one:?} {other:?}: more than {bound}");
        }
        prop_assert!(quiet_moments > 0);
    }
}
