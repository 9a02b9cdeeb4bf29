//! An answer in words and numbers, for a terminal.

use std::fmt;

use policy::backlog::Counted;
use policy::latency::Needs;
use policy::rate::Arrivals;
use policy::{Clamp, Decision, Reckoning};

use super::{Entry, Rule, Seen};

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, since, until, times, seen, rule, decision } = self;
        let Decision { value, target, active, active_because, reckoning, clamps } = decision;
        let workers = number(value / target);
        let is = if *active { "active" } else { "not active" };
        writeln!(f, "{until:.0}  {object}: {workers} workers, {is}: {active_because}")?;
        writeln!(f, "  answered {times} times since {since:.0}: value {}, target {}", number(*value), number(*target))?;
        writeln!(f, "  seen:   {seen}")?;
        writeln!(f, "  rule:   {rule}")?;
        match reckoning {
            Reckoning::Backlog(counted) => write!(f, "{}", Shown(counted))?,
            Reckoning::Latency(needs) => write!(f, "{}", Shown(needs))?,
            Reckoning::Rate(arrivals) => write!(f, "{}", Shown(arrivals))?,
        }
        for Clamp { rule, from, to } in clamps {
            writeln!(f, "  clamp:  {rule}: {} → {}", number(*from), number(*to))?;
        }
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting: Vec<String> = self.waiting.iter().map(|(class, waiting)| format!("{waiting} {class}")).collect();
        write!(f, "backlog {}: waiting {}", self.backlog, waiting.join(", "))?;
        write!(f, "; in flight {}, leased {}, retry {}", self.in_flight, self.leased, self.retry)?;
        if let Some(oldest) = self.oldest_seconds {
            write!(f, "; oldest {} s", number(oldest))?;
        }
        write!(f, "; workers {} ready, {} loading, {} draining", self.ready, self.loading, self.draining)?;
        if let Some(most) = self.max_consumers {
            write!(f, "; room for {most} consumers")?;
        }
        match self.batch {
            Some([base, item, limit]) => {
                write!(
                    f,
                    "; a batch takes {} + {} ms an item, up to {}",
                    number(base * 1e3),
                    number(item * 1e3),
                    number(limit)
                )?;
                if self.batch_is_recalled {
                    f.write_str(" (measured before this scaler started)")?;
                }
            }
            None => f.write_str("; no batch measured yet")?,
        }
        if let Some(cold_start) = self.cold_start_seconds {
            write!(f, "; cold start {} s", number(cold_start))?;
        }
        write!(f, "; seen for {} s", number(self.history_seconds))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mode {}, activation {}, at least {}", self.mode, number(self.activation), self.min_workers)?;
        match self.max_workers {
            Some(most) => write!(f, " and at most {most} workers")?,
            None => f.write_str(" workers")?,
        }
        self.seconds.iter().try_for_each(|(name, seconds)| write!(f, ", {name} {} s", number(*seconds)))
    }
}

/// A part of a decision, as text.
struct Shown<T>(T);

impl fmt::Display for Shown<&Counted> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(counted) = self;
        let Counted { waiting, held, retry } = counted;
        writeln!(f, "  value:  {} = waiting {waiting} + held {held} + retry {retry}", counted.total())
    }
}

impl fmt::Display for Shown<&Arrivals> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(arrivals) = self;
        let Arrivals { arrivals, backlog, value } = arrivals;
        writeln!(
            f,
            "  value:  {} = {} arrivals/s + {}/s to work off the backlog",
            number(*value),
            number(*arrivals),
            number(*backlog)
        )
    }
}

impl fmt::Display for Shown<&Needs> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(needs) = self;
        write!(f, "  load:   {} arrivals/s, held {}/s", number(needs.arrivals), number(needs.held_arrivals))?;
        if let Some(forecast) = needs.forecast {
            let (foreseen, error) = (number(forecast.arrivals), number(forecast.mean_absolute_error));
            write!(
                f,
                "; foreseen in {} s: {foreseen}/s, off by {error}/s on average",
                number(forecast.horizon_seconds)
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  limits: {} jobs/s per worker, slack {} s, cold start {} s",
            number(needs.throughput),
            number(needs.slack_seconds),
            number(needs.cold_start_seconds)
        )?;
        writeln!(f, "  rate:   {} = held arrivals ÷ throughput", number(needs.rate))?;
        writeln!(
            f,
            "  replay: {} would have kept what arrived in the last {} s within the slack; {} % of the last hour's were late",
            number(needs.replay),
            number(needs.look_back_seconds),
            number(needs.late_share * 100.0)
        )?;
        writeln!(
            f,
            "  growth: {} to work off {} jobs too much after the cold start",
            number(needs.growth),
            number(needs.excess)
        )?;
        writeln!(f, "  keep:   {} so that nobody leaves a backlog behind", number(needs.keep))?;
        writeln!(f, "  wanted: {}, the largest, and at least 1 while there is work", number(needs.wanted))
    }
}

/// A number with as many decimals as say something.
fn number(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number}") } else { format!("{number:.2}") }
}
