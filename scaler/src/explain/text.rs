//! An answer as text for a terminal.

use std::fmt;

use policy::backlog::BacklogTerms;
use policy::latency::LatencyTerms;
use policy::rate::RateTerms;
use policy::{Clamp, Decision, Keep, Terms};

use super::{Entry, PoolSnapshot, Rule};

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, since, until, times, pool, rule, decision } = self;
        let Decision { value, target, active, active_because, terms, clamps } = decision;
        let state = if *active { "active" } else { "not active" };
        writeln!(f, "{until:.0}  {object}: {}, {state}: {active_because}", workers(value / target))?;
        let (value, target, times) = (number(*value), number(*target), counted(*times, "time"));
        writeln!(f, "  answer:    value {value}, target {target}; given {times} since {since:.0}")?;
        writeln!(f, "  pool:      {pool}")?;
        writeln!(f, "  rule:      {rule}")?;
        match terms {
            Terms::Backlog(terms) => write_backlog(f, terms)?,
            Terms::Latency(terms) => write_latency(f, terms)?,
            Terms::Rate(terms) => write_rate(f, terms)?,
        }
        for Clamp { rule, from, to } in clamps {
            writeln!(f, "  clamp:     {rule}: {} → {}", number(*from), workers(*to))?;
        }
        Ok(())
    }
}

impl fmt::Display for PoolSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting: Vec<String> = self.waiting.iter().map(|(class, waiting)| format!("{waiting} {class}")).collect();
        write!(f, "backlog {}: {} waiting", counted(self.backlog, "job"), waiting.join(", "))?;
        write!(f, ", {} in flight, {} leased, {} due for retry", self.in_flight, self.leased, self.retry)?;
        if let Some(oldest) = self.oldest_seconds {
            write!(f, "; the oldest job has waited {} s", number(oldest))?;
        }
        write!(f, "; workers: {} ready, {} loading, {} draining", self.ready, self.loading, self.draining)?;
        if let Some(most) = self.max_consumers {
            write!(f, "; at most {most} workers can receive jobs")?;
        }
        match self.batch {
            Some([base, item, limit]) => {
                let (base, item, limit) = (number(base * 1e3), number(item * 1e3), number(limit));
                write!(f, "; batch time {base} ms + {item} ms per item, at most {limit} items")?;
                if self.batch_is_recalled {
                    f.write_str(" (measured before this scaler started)")?;
                }
            }
            None => f.write_str("; no batch measured yet")?,
        }
        if let Some(cold_start) = self.cold_start_seconds {
            write!(f, "; cold start {} s", number(cold_start))?;
        }
        write!(f, "; history {} s", number(self.history_seconds))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mode {}, activation {} jobs, min_workers {}", self.mode, number(self.activation), self.min_workers)?;
        if let Some(most) = self.max_workers {
            write!(f, ", max_workers {most}")?;
        }
        self.seconds.iter().try_for_each(|(name, seconds)| write!(f, ", {name} {} s", number(*seconds)))
    }
}

fn write_backlog(f: &mut fmt::Formatter<'_>, terms: &BacklogTerms) -> fmt::Result {
    let BacklogTerms { waiting, held, retry } = terms;
    let total = counted(terms.total(), "job");
    writeln!(f, "  value:     {total} = {waiting} waiting + {held} held by workers + {retry} due for retry")
}

fn write_rate(f: &mut fmt::Formatter<'_>, terms: &RateTerms) -> fmt::Result {
    let [arrivals, backlog, value] = [terms.arrivals, terms.backlog, terms.value].map(number);
    writeln!(f, "  value:     {value} jobs/s = {arrivals} jobs/s arriving + {backlog} jobs/s to finish the backlog")
}

fn write_latency(f: &mut fmt::Formatter<'_>, terms: &LatencyTerms) -> fmt::Result {
    let [arrivals, throughput, slack, start] =
        [terms.arrivals, terms.throughput, terms.slack_seconds, terms.start_seconds].map(number);
    write!(f, "  arrivals:  {arrivals} jobs/s")?;
    if let Some(expected) = terms.expected_arrivals {
        write!(f, "; {} jobs/s are expected in {start} s, if the rise continues", number(expected))?;
    }
    writeln!(f)?;
    write!(f, "  capacity:  {throughput} jobs/s per worker; a job may wait {slack} s; ")?;
    writeln!(f, "a worker is ready {start} s after its request")?;
    if terms.on_the_way > 0.0 {
        writeln!(f, "  requested: {} that did not register yet", workers(terms.on_the_way))?;
    }
    if terms.stuck > 0 {
        writeln!(f, "  stuck:     {} loading for too long, not counted as capacity", counted(terms.stuck, "worker"))?;
    }
    let [late, settled, margin] =
        [terms.late_share * 100.0, terms.settled_late_share * 100.0, terms.margin].map(number);
    write!(f, "  late:      {late} % of the jobs had to wait too long, {settled} % of them without a start as the ")?;
    writeln!(f, "reason; so the need is multiplied by {margin}")?;
    writeln!(f, "  need:      {} (for the present arrivals)", workers(terms.need))?;
    writeln!(f, "  trend:     {} (for the expected arrivals)", workers(terms.trend))?;
    write_keep(f, terms)?;
    let excess = number(terms.excess);
    writeln!(f, "  catch up:  {} ({excess} jobs would have to wait too long otherwise)", workers(terms.catch_up))?;
    writeln!(f, "  retain:    {} (present workers that the backlog still needs)", workers(terms.retain))?;
    if terms.patient > 0.0 {
        writeln!(f, "  patient:   {} (for the classes that can wait)", workers(terms.patient))?;
    }
    writeln!(f, "  wanted:    {} (the largest of these, at least 1 while there is work)", workers(terms.wanted))
}

fn write_keep(f: &mut fmt::Formatter<'_>, terms: &LatencyTerms) -> fmt::Result {
    let Keep { seconds, late_share, least_late_share, worker_hours_per_day, .. } = terms.keep;
    let [seconds, late, least, cost] =
        [seconds, late_share * 100.0, least_late_share * 100.0, worker_hours_per_day].map(number);
    write!(f, "  kept:      {} (the largest need of the last {seconds} s; ", workers(terms.kept))?;
    writeln!(
        f,
        "on the past arrivals this keep time makes {late} % of the jobs late, and costs {cost} worker-hours a day)"
    )?;
    if terms.cannot_keep_promise() {
        write!(
            f,
            "  promise:   it cannot be kept: with the best keep time, {least} % of the past jobs would have been "
        )?;
        writeln!(f, "late, because a start takes {} s. A minimum of workers helps", number(terms.start_seconds))?;
    }
    Ok(())
}

/// A number with its noun: `1 worker`, `2.80 workers`.
fn workers(count: f64) -> String {
    format!("{} worker{}", number(count), if count == 1.0 { "" } else { "s" })
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A whole number without decimals, any other number with two.
fn number(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number}") } else { format!("{number:.2}") }
}
