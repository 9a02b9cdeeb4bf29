//! `millrace simulate`: scaling policies under a load, in virtual time.

mod recorded;
mod report;
mod require;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use indicatif::ProgressBar;
use simulator::comparison::{Comparison, compare};
use simulator::oracle::ORACLE;
use simulator::report::RunReport;
use simulator::scenario::Scenario;
use simulator::{load, plot, suite};

use recorded::RecordedArgs;
use require::Requirement;

use crate::output::print_error;
use crate::progress;

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// A scenario or a recorded load. A scenario (YAML) has an objective, worker times, traces and policies; see
    /// deploy/simulation. Its file names are relative to its folder. A recorded load is a CSV file with the columns time
    /// (seconds from 0, or RFC 3339), pool and work; pool and work may be absent. Each of its pools is simulated with the
    /// modes latency and backlog
    #[arg(value_name = "SCENARIO.yaml or TRACE.csv", required_unless_present = "suite")]
    scenario: Option<PathBuf>,
    /// Run mode latency and its peers under the loads of the library: Knative's autoscaler, the best threshold on the
    /// backlog, and the best constant number of workers. Print one table
    #[arg(long, conflicts_with_all = ["scenario", "out", "json"])]
    suite: bool,
    /// The seed of the loads of the suite
    #[arg(long, default_value_t = 1, requires = "suite")]
    seed: u64,
    /// Leave out the oracle, whose search takes the longest time
    #[arg(long)]
    no_oracle: bool,
    /// Fail unless a figure reaches a bound: attainment>=SHARE (from 0 to 1) or cost<=FACTOR (times the upper bound).
    /// For one policy: POLICY:attainment>=0.95. Without a policy it holds for all policies; in the suite, for mode
    /// latency. May be repeated
    #[arg(long, value_name = "FIGURE")]
    require: Vec<Requirement>,
    #[command(flatten)]
    recorded: RecordedArgs,
    /// Draw each trace in this folder as TRACE.svg: arrivals, backlog, workers and age of the oldest job
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print one JSON object per trace and policy instead of tables
    #[arg(long)]
    json: bool,
}

/// Runs every policy of the scenario under every trace, prints the results, and draws them if `--out` is given.
pub(crate) fn simulate(arguments: &SimulateArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(file) = &arguments.scenario else { return run_suite(arguments, out) };
    let of_scenario = |faults: service::Faults| anyhow!("{} has faults\n{faults}", file.display());
    let is_trace = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let mut scenario = if is_trace {
        arguments.recorded.scenario(file)?
    } else {
        arguments.recorded.refuse_with_scenario(file)?;
        Scenario::read(file).map_err(of_scenario)?
    };
    let traces = scenario.load_traces(file.parent().unwrap_or(Path::new(".")));
    let traces = traces.map_err(|faults| if is_trace { recorded::row_faults(&faults) } else { of_scenario(faults) })?;
    scenario.oracle &= !arguments.no_oracle;
    // The oracle searches twice: for the best numbers of workers, and for the best fixed one.
    let runs = traces.len() * (scenario.policies.len() + if scenario.oracle { 2 } else { 0 });
    let bar = progress::bar(runs, "runs");
    let progress = |trace: &str, policy: &str| step(&bar, format!("{trace}, {policy}"));
    let comparisons = compare(&scenario, &traces, &progress)?;
    bar.finish_and_clear();
    if is_trace && arguments.json {
        print_error(format_args!("{}", arguments.recorded.assumptions()));
    } else if is_trace {
        writeln!(out, "{}\n", arguments.recorded.assumptions())?;
    }
    if arguments.json {
        report::print_lines(&comparisons, out)?;
    } else {
        report::print_tables(&comparisons, out)?;
    }
    if let Some(folder) = &arguments.out {
        draw(&comparisons, folder)?;
    }
    let reports = comparisons.iter().flat_map(|comparison| {
        let runs = comparison.runs.iter().filter(|run| run.policy != ORACLE);
        runs.map(|run| RunReport::new(comparison, run))
    });
    let figures = reports.map(|report| require::Figures {
        trace: report.trace.to_owned(),
        policy: report.policy.to_owned(),
        attainment: report.within_objective,
        cost: report.times_upper_bound,
    });
    require::check(&arguments.require, &figures.collect::<Vec<_>>())
}

/// Runs the loads of the library, and prints the table and the summary.
fn run_suite(arguments: &SimulateArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let loads = load::library(arguments.seed);
    let bar = progress::bar(loads.len(), "loads");
    let rows = suite::run(&loads, !arguments.no_oracle, &|name| step(&bar, name.to_owned()))?;
    bar.finish_and_clear();
    writeln!(out, "{}", suite::table(&rows)?)?;
    write!(out, "{}", suite::Summary::new(&rows))?;
    let reachable = rows.iter().filter(|row| row.upper_bound.is_some());
    let figures = reachable.filter_map(|row| {
        let run = &row.run(suite::LATENCY)?.figures;
        let upper = row.upper_bound.as_ref()?.worker_time;
        Some(require::Figures {
            trace: row.load.clone(),
            policy: suite::LATENCY.to_owned(),
            attainment: run.attainment,
            cost: Some(run.worker_time.div_duration_f64(upper)),
        })
    });
    require::check(&arguments.require, &figures.collect::<Vec<_>>())
}

/// Shows that a run has ended.
fn step(bar: &ProgressBar, ended: String) {
    bar.set_message(ended);
    bar.inc(1);
}

fn draw(comparisons: &[Comparison<'_>], folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    for comparison in comparisons {
        let file = folder.join(format!("{}.svg", comparison.name));
        let picture = plot::svg(comparison).with_context(|| format!("trace {}", comparison.name))?;
        std::fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
