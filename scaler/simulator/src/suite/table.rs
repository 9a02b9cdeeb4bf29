//! The table of the suite as text, and its summary.

use std::fmt::{self, Write};

use super::{FIXED, KPA, LATENCY, Row, THRESHOLD};
use crate::comparison::Run;

/// The figures over all loads.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The loads.
    pub loads: usize,
    /// The loads on which some run keeps the promise.
    pub reachable: usize,
    /// The loads of these on which mode latency keeps it.
    pub kept: usize,
    /// The loads of these on which it does not, by name.
    pub missed: Vec<String>,
    /// The median and the ninth decile of the cost of mode latency, divided by the upper bound, where both keep the
    /// promise.
    pub cost: [f64; 2],
    /// The median of the starts of mode latency, divided by those of the upper bound's run, likewise.
    pub starts: f64,
    /// The loads on which a peer keeps more and costs less.
    pub beaten: Vec<String>,
    /// The loads on which the cost is above 1.1 times that of the best constant number.
    pub above_fixed: Vec<String>,
}

impl Summary {
    /// The summary of all rows.
    pub fn new(rows: &[Row]) -> Self {
        let mut summary = Self {
            loads: rows.len(),
            reachable: 0,
            kept: 0,
            missed: Vec::new(),
            cost: [f64::NAN; 2],
            starts: f64::NAN,
            beaten: Vec::new(),
            above_fixed: Vec::new(),
        };
        let (mut costs, mut starts) = (Vec::new(), Vec::new());
        for row in rows {
            let Some(latency) = row.run(LATENCY).map(|run| &run.figures) else { continue };
            let is_better = |peer: &&str| {
                row.run(peer).is_some_and(|run| {
                    let peer = &run.figures;
                    // A share above the promise is worth nothing.
                    let worse = peer.attainment > latency.attainment && !latency.is_met;
                    let equal = peer.is_met == latency.is_met && latency.is_met;
                    (worse || equal) && peer.worker_time < latency.worker_time
                })
            };
            let better = [KPA, THRESHOLD].into_iter().filter(is_better);
            summary.beaten.extend(better.map(|peer| format!("{} by {peer}", row.load)));
            let Some(upper) = &row.upper_bound else { continue };
            summary.reachable += 1;
            if !latency.is_met {
                summary.missed.push(format!("{} ({:.1} %)", row.load, latency.attainment * 100.0));
                continue;
            }
            summary.kept += 1;
            costs.push(latency.worker_time.div_duration_f64(upper.worker_time));
            starts.push(f64::from(latency.starts) / f64::from(row.upper_starts.max(1)));
            let fixed = row.run(FIXED).map(|run| run.figures.worker_time.mul_f64(1.1));
            if fixed.is_some_and(|most| latency.worker_time > most) {
                summary.above_fixed.push(row.load.clone());
            }
        }
        summary.cost = [0.5, 0.9].map(|share| quantile(&mut costs, share));
        summary.starts = quantile(&mut starts, 0.5);
        summary
    }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil().max(1.0) as usize;
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loads, reachable, kept, .. } = self;
        writeln!(
            f,
            "{loads} loads; some run keeps the promise on {reachable}; mode latency keeps it on {kept} of them"
        )?;
        writeln!(f, "cost / upper bound, where kept: median {:.2}, ninth decile {:.2}", self.cost[0], self.cost[1])?;
        writeln!(f, "starts / those of the upper bound: median {:.2}", self.starts)?;
        for (what, names) in [
            ("promise missed", &self.missed),
            ("a peer is as good or better and cheaper", &self.beaten),
            ("more than 1.1 x the best constant number", &self.above_fixed),
        ] {
            writeln!(f, "{what}: {}", names.len())?;
            names.iter().try_for_each(|name| writeln!(f, "  {name}"))?;
        }
        Ok(())
    }
}

/// A line per load: the bounds in worker-hours, then per policy the share within the promise, the share owed to cold
/// starts from zero, the cost divided by the upper bound, and the starts per hour.
pub fn table(rows: &[Row]) -> Result<String, fmt::Error> {
    let width = rows.iter().map(|row| row.load.len()).max().unwrap_or(0).max(4);
    let mut text = String::new();
    write!(text, "{:width$} | lower upper by       ", "load")?;
    for name in [LATENCY, KPA, THRESHOLD, FIXED] {
        write!(text, "| {name:<9} within zero  cost /h   ")?;
    }
    writeln!(text)?;
    for row in rows {
        write!(text, "{:width$} | {:>5.1} ", row.load, row.lower_bound.as_secs_f64() / 3600.0)?;
        match &row.upper_bound {
            Some(upper) => write!(text, "{:>5.1} {:<9}", upper.worker_time.as_secs_f64() / 3600.0, upper.policy)?,
            None => write!(text, "    - {:<9}", "")?,
        }
        for name in [LATENCY, KPA, THRESHOLD, FIXED] {
            let setting = match name {
                THRESHOLD => format!("{}", row.threshold),
                FIXED => row.fixed.map_or_else(|| "-".to_owned(), |number| number.to_string()),
                _ => String::new(),
            };
            match row.run(name) {
                Some(run) => cells(&mut text, row, run, &setting)?,
                None => write!(text, "| {setting:<9} {:>6} {:>5} {:>5} {:>5} ", "-", "-", "-", "-")?,
            }
        }
        writeln!(text)?;
    }
    Ok(text)
}

fn cells(text: &mut String, row: &Row, run: &Run, setting: &str) -> fmt::Result {
    let figures = &run.figures;
    let cost = row.upper_bound.as_ref().map(|upper| figures.worker_time.div_duration_f64(upper.worker_time));
    // Rounded down: 94.99 % must not look like a kept promise.
    let within = (figures.attainment * 1000.0).floor() / 10.0;
    let mark = if figures.is_met { ' ' } else { '!' };
    let zero = figures.late_from_zero * 100.0;
    let per_hour = f64::from(figures.starts) * 3600.0 / row.length.as_secs_f64();
    write!(text, "| {setting:<9} {within:>5.1}{mark} {zero:>5.1} ")?;
    match cost {
        Some(cost) => write!(text, "{cost:>5.2} ")?,
        None => write!(text, "{:>4.1}h ", figures.worker_time.as_secs_f64() / 3600.0)?,
    }
    write!(text, "{per_hour:>5.1} ")
}
