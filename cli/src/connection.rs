//! The options with which a command reaches a gateway or a scaler.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use client::{Error, Gateway, PemError, Scaler, Tls, TlsFault};

/// Where the gateway is, and how it is trusted.
#[derive(Debug, Clone, Args)]
pub(crate) struct GatewayArgs {
    /// The gateway
    #[arg(long, value_name = "URL", env = "MILLRACE_GATEWAY", default_value = "http://127.0.0.1:8080", global = true)]
    pub(crate) gateway: String,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// Where the admin address of a scaler is, and how it is trusted.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// The scaler's admin address (`millrace scaler --admin`, `millrace up --admin`)
    #[arg(long, value_name = "URL", env = "MILLRACE_SCALER_ADMIN", default_value = "http://127.0.0.1:9091")]
    admin: String,
    #[command(flatten)]
    tls: TlsArgs,
}

/// The files for TLS, in PEM.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "With an https:// URL")]
pub(crate) struct TlsArgs {
    /// The certificate authorities that may issue the server's certificate, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", env = "MILLRACE_CA_FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// The certificate to present to a server that demands one, in PEM
    #[arg(long, value_name = "FILE", env = "MILLRACE_CERT_FILE", global = true)]
    cert_file: Option<PathBuf>,
    /// The private key of `--cert-file`, in PEM
    #[arg(long, value_name = "FILE", env = "MILLRACE_KEY_FILE", global = true)]
    key_file: Option<PathBuf>,
}

impl GatewayArgs {
    /// The gateway. Nothing is sent yet.
    pub(crate) fn open(&self) -> anyhow::Result<Gateway> {
        let tls = self.tls.read()?;
        Gateway::new(&self.gateway, &tls).context("--gateway")
    }
}

impl AdminArgs {
    /// The scaler. Nothing is sent yet.
    pub(crate) fn open(&self) -> anyhow::Result<Scaler> {
        let tls = self.tls.read()?;
        Scaler::new(&self.admin, &tls).context("--admin")
    }
}

impl TlsArgs {
    /// Reads the files.
    fn read(&self) -> anyhow::Result<Tls> {
        let mut tls = Tls::default();
        if let Some(file) = &self.ca_file {
            let pem = contents("--ca-file", file)?;
            tls = tls.trusting(&pem).map_err(|error| refused("--ca-file", file, &error))?;
        }
        match (&self.cert_file, &self.key_file) {
            (None, None) => Ok(tls),
            (Some(certificate), Some(key)) => {
                let pem = (contents("--cert-file", certificate)?, contents("--key-file", key)?);
                tls.presenting(&pem.0, &pem.1).map_err(|error| match error {
                    PemError::NoKey | PemError::OtherKey => refused("--key-file", key, &error),
                    _ => refused("--cert-file", certificate, &error),
                })
            }
            (Some(_), None) => bail!("--key-file: is missing; --cert-file needs it"),
            (None, Some(_)) => bail!("--cert-file: is missing; --key-file needs it"),
        }
    }
}

fn contents(option: &str, file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| anyhow!("{option}: {file:?} cannot be read: {error}"))
}

fn refused(option: &str, file: &Path, error: &PemError) -> anyhow::Error {
    anyhow!("{option}: {file:?} {error}")
}

/// The options that help against an error, if there are any.
pub(crate) fn way_out(error: &anyhow::Error) -> Option<&'static str> {
    let error = error.chain().find_map(|cause| cause.downcast_ref::<Error>())?;
    match error {
        Error::Tls { fault: TlsFault::UnknownIssuer, .. } => {
            Some("name the file of the authority's certificate with --ca-file")
        }
        Error::Tls { fault: TlsFault::ClientCertificate(_), .. } => {
            Some("name a certificate that the server accepts with --cert-file and --key-file")
        }
        _ => None,
    }
}
