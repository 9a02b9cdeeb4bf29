//! A running service, and its configuration.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running service. It is killed when this is dropped.
pub(crate) struct Service {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Service {
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// Starts a service with this standard error.
    pub(crate) fn start_with(mut command: Command, stderr: Stdio) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Sends SIGTERM, and waits for the end of the process. Returns its status.
    pub(crate) fn stop(mut self) -> ExitStatus {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        self.process.wait().unwrap()
    }

    /// The rest of the next line that starts with `text`.
    pub(crate) fn line(&mut self, text: &str) -> String {
        let line =
            self.lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(text).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no line starts with {text:?}"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command that runs a service with the configuration in this folder.
pub(crate) fn command(service: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args([service, "--config"]).arg(folder.join("millrace.yaml")).current_dir(folder);
    command
}

/// Writes a configuration into this folder, with `more` as members of the settings for TLS. `None`: there is no TLS.
pub(crate) fn configure(folder: &Path, tls: Option<&str>) {
    let path = |name: &str| -> PathBuf { folder.join(name) };
    let tls = tls.map(|more| {
        let (certificate, key) = (path("tls.crt"), path("tls.key"));
        format!("tls: {{certificate: {certificate:?}, key: {key:?}, reload_interval: 20ms{more}}}")
    });
    let tls = tls.unwrap_or_default();
    let text = format!(
        "broker: 'embedded:{data}'\nblobs: {{folder: null}}\npools: {{echo: {{model: echo}}}}\nadmin: {{{tls}}}\n\
         scaler: {{listen: '127.0.0.1:0'}}\ngateway: {{listen: '127.0.0.1:0', {tls}}}\n",
        data = path("data").display(),
    );
    std::fs::write(path("millrace.yaml"), text).unwrap();
}
