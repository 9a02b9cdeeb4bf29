//! A running service, and its configuration.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running service. It is killed when this is dropped.
pub(crate) struct Service {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Service {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
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
