//! An answer as text for a terminal.

use std::fmt;

use policy::backlog::BacklogTerms;
use policy::latency::LatencyTerms;
use policy::rate::RateTerms;
use policy::{Clamp, Decision, Terms};

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
    let [arrivals, highest] = [terms.arrivals, terms.highest_arrivals].map(number);
    write!(f, "  arrivals:  {arrivals} jobs/s, highest {highest} jobs/s within scale_down_delay")?;
    if let Some(forecast) = terms.forecast {
        let expected = [forecast.arrivals, forecast.horizon_seconds, forecast.mean_absolute_error];
        let [arrivals, ahead, error] = expected.map(number);
        write!(f, "; forecast for {ahead} s ahead: {arrivals} jobs/s, mean error {error} jobs/s")?;
    }
    writeln!(f)?;
    let [throughput, slack, cold_start] = [terms.throughput, terms.slack_seconds, terms.cold_start_seconds].map(number);
    writeln!(f, "  capacity:  {throughput} jobs/s per worker; a job may wait {slack} s; cold start {cold_start} s")?;
    writeln!(f, "  rate:      {} (highest arrivals ÷ capacity)", workers(terms.rate))?;
    let [look_back, late] = [terms.look_back_seconds, terms.late_share * 100.0].map(number);
    writeln!(
        f,
        "  replay:    {} (would have kept the jobs of the last {look_back} s in time; {late} % of the jobs of the last \
         hour were late)",
        workers(terms.replay)
    )?;
    let excess = number(terms.excess);
    writeln!(f, "  catch up:  {} ({excess} jobs over capacity when the cold start ends)", workers(terms.catch_up))?;
    writeln!(f, "  retain:    {} (present workers that the backlog still needs)", workers(terms.retain))?;
    writeln!(f, "  wanted:    {} (the largest of these, at least 1 while there is work)", workers(terms.wanted))
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
