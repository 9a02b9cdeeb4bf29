//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use service::{Period, Sources};

use crate::dead::DeadArgs;
use crate::demo::DemoModel;
use crate::explain::ExplainArgs;
use crate::job::{CancelArgs, GetArgs, StatusArgs, WaitArgs};
use crate::simulate::SimulateArgs;
use crate::submit::SubmitArgs;

/// Turn a queue into a GPU fleet.
///
/// Jobs arrive over HTTP and wait in a broker. Workers batch them and run the model. A scaler reports to KEDA how many
/// workers each pool needs, from zero to burst and back. `millrace up` runs everything on this machine.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, max_term_width = 120)]
pub struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on this machine: gateway, scaler, and as many workers as the pools need
    Up {
        #[command(flatten)]
        configuration: Configuration,
        #[command(flatten)]
        admin: Admin,
    },
    /// Run the gateway: takes jobs over HTTP and publishes them to the broker
    Gateway {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Run one worker of a pool
    Worker {
        #[command(flatten)]
        configuration: Configuration,
        /// The pool whose jobs the worker runs
        #[arg(long, env = "MILLRACE_POOL")]
        pool: String,
        #[command(flatten)]
        admin: Admin,
        /// Stop when the parent process, which has this id, ends
        #[arg(long, hide = true, value_name = "PID")]
        follow_parent: Option<u32>,
    },
    /// Run the scaler: KEDA's external scaler over gRPC
    Scaler {
        #[command(flatten)]
        configuration: Configuration,
        #[command(flatten)]
        admin: Admin,
    },
    /// Submit files as jobs, wait for them, and print the results
    Submit(SubmitArgs),
    Status(StatusArgs),
    Wait(WaitArgs),
    Get(GetArgs),
    Cancel(CancelArgs),
    Explain(ExplainArgs),
    /// List, show, requeue or delete dead and failed jobs
    Dead(DeadArgs),
    /// Check broker, ledger and configuration for risks of losing or delaying jobs; fails if a risk is severe
    Doctor {
        #[command(flatten)]
        configuration: Configuration,
        /// Print one JSON object per risk instead of a table
        #[arg(long)]
        json: bool,
        /// How long to measure the rate at which jobs end, for the room that their records will take. A longer time finds
        /// lower rates
        #[arg(long, default_value = "5s")]
        measure: Period,
    },
    /// Simulate scaling policies under a load, in virtual time
    Simulate(SimulateArgs),
    /// Check, show or describe the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a script that completes the commands and options of this program in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write models
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
}

/// Where the configuration comes from: file, then environment, then flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct Configuration {
    /// The configuration file (YAML)
    #[arg(long, short, env = "MILLRACE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Override one key, such as `gateway.listen=127.0.0.1:8081`; may be repeated. The environment can do the same:
    /// `MILLRACE__GATEWAY__LISTEN=127.0.0.1:8081`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// The address for an orchestrator's probes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Admin {
    /// Serve /livez, /readyz and /metrics at this address; a scaler also serves /explain/POOL
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every fault of the configuration; fails if there is one
    Check {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Print the configuration in effect, including defaults
    Show {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print the reference of the configuration file, in Markdown
    Reference,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Write a model of realistic size for trials
    Demo {
        /// Which model
        #[arg(value_enum)]
        model: DemoModel,
        /// The folder to write to; the command creates `NAME/VERSION` in it
        #[arg(long, default_value = "models", value_name = "FOLDER")]
        folder: PathBuf,
        /// Weights with torchvision's names (safetensors) [default: random weights]
        #[arg(long, value_name = "FILE")]
        weights: Option<PathBuf>,
        /// The names of the classes, one per line
        #[arg(long, value_name = "FILE")]
        labels: Option<PathBuf>,
        /// The seed of random weights
        #[arg(long, default_value_t = 0)]
        seed: i64,
    },
}

impl Configuration {
    /// The sources of the configuration: these arguments and the environment of this process.
    pub(crate) fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.set.clone())
    }

    /// The arguments that give another process of this program the same configuration.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let file = self.config.iter().flat_map(|file| ["--config".to_owned(), file.display().to_string()]);
        let flags = self.set.iter().flat_map(|pair| ["--set".to_owned(), pair.clone()]);
        file.chain(flags).collect()
    }
}
