//! `millrace simulate`: scaling policies under a load, in virtual time.

mod recorded;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use simulator::comparison::{Comparison, compare};
use simulator::plot;
use simulator::scenario::Scenario;

use recorded::RecordedArgs;

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// A scenario or a recorded load. A scenario (YAML) has an objective, worker times, traces and policies; see
    /// deploy/simulation. Its file names are relative to its folder. A recorded load is a CSV file with the columns time
    /// (seconds from 0, or RFC 3339), pool and work; pool and work may be absent. Each of its pools is simulated with the
    /// modes latency and backlog
    #[arg(value_name = "SCENARIO.yaml or TRACE.csv")]
    scenario: PathBuf,
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
    let file = &arguments.scenario;
    let of_scenario = |faults: service::Faults| anyhow!("{} has faults\n{faults}", file.display());
    let is_trace = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let scenario = if is_trace {
        arguments.recorded.scenario(file)?
    } else {
        arguments.recorded.refuse_with_scenario(file)?;
        Scenario::read(file).map_err(of_scenario)?
    };
    let traces = scenario.load_traces(file.parent().unwrap_or(Path::new(".")));
    let traces = traces.map_err(|faults| if is_trace { recorded::row_faults(&faults) } else { of_scenario(faults) })?;
    let comparisons = compare(&scenario, &traces)?;
    if is_trace && arguments.json {
        eprintln!("{}", arguments.recorded.assumptions());
    } else if is_trace {
        writeln!(out, "{}\n", arguments.recorded.assumptions())?;
    }
    if arguments.json {
        report::print_lines(&comparisons, out)?;
    } else {
        report::print_tables(&comparisons, &scenario.worker, out)?;
    }
    if let Some(folder) = &arguments.out {
        draw(&comparisons, folder)?;
    }
    Ok(())
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
