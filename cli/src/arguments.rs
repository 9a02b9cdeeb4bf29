//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use service::Sources;

use crate::dead::DeadArgs;
use crate::explain::ExplainArgs;
use crate::simulate::SimulateArgs;
use crate::submit::SubmitArgs;

/// Turn a queue into a GPU fleet.
///
/// Jobs come in over HTTP, wait in a broker, are batched and run by workers; a scaler tells KEDA how many workers each
/// pool needs, from zero to burst and back. `millrace up` runs all of it on this machine.
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
    /// Run the gateway: HTTP in, jobs out
    Gateway {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Run one worker of a pool
    Worker {
        #[command(flatten)]
        configuration: Configuration,
        /// The pool to work for
        #[arg(long, env = "MILLRACE_POOL")]
        pool: String,
        #[command(flatten)]
        admin: Admin,
        /// Stop when the process with this id, which started this one, ends
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
    /// Submit files as jobs, wait for them, show the results
    Submit(SubmitArgs),
    Explain(ExplainArgs),
    /// See, try again or forget the jobs that ended badly
    Dead(DeadArgs),
    /// Say what about broker, ledger and configuration may lose or delay jobs; fails if any of it is severe
    Doctor {
        #[command(flatten)]
        configuration: Configuration,
        /// Print one JSON object per risk instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Say what policies would make of a load, in virtual time
    Simulate(SimulateArgs),
    /// Check or show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Make models
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

/// Where an orchestrator asks how the process is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Admin {
    /// Serve /livez, /readyz and /metrics at this address; a scaler /explain/POOL too
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say everything that is wrong with the configuration, or that nothing is
    Check {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Print the configuration as it is in force, defaults included
    Show {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Write a model of real size, to try things with
    Demo {
        /// Which one
        #[arg(value_enum)]
        model: DemoModel,
        /// The folder to write; `NAME/VERSION` below it is made
        #[arg(long, default_value = "models", value_name = "FOLDER")]
        folder: PathBuf,
        /// Weights with torchvision's names (safetensors); random ones if not given
        #[arg(long, value_name = "FILE")]
        weights: Option<PathBuf>,
        /// The classes' names, one a line
        #[arg(long, value_name = "FILE")]
        labels: Option<PathBuf>,
        /// The seed of random weights
        #[arg(long, default_value_t = 0)]
        seed: i64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DemoModel {
    /// ResNet-50 for 224×224 images, 25.6 million parameters
    Resnet50,
}

impl Configuration {
    /// The sources that these arguments and this process's environment name.
    pub(crate) fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.set.clone())
    }

    /// The same as arguments for another process of this program.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let file = self.config.iter().flat_map(|file| ["--config".to_owned(), file.display().to_string()]);
        let flags = self.set.iter().flat_map(|pair| ["--set".to_owned(), pair.clone()]);
        file.chain(flags).collect()
    }
}
