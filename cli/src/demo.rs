//! `millrace model demo`.

use std::path::Path;

#[cfg(feature = "torch")]
use crate::output::{escaped, print_line};

/// A model that this program can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DemoModel {
    /// ResNet-50 for 224×224 images, 25.6 million parameters
    Resnet50,
}

/// Writes a demonstration model below `folder`.
#[cfg(feature = "torch")]
pub(crate) fn write(
    model: DemoModel,
    folder: &Path,
    weights: Option<&Path>,
    labels: Option<&Path>,
    seed: i64,
) -> anyhow::Result<()> {
    use worker::runtime::resnet50::{self, Weights};

    match model {
        DemoModel::Resnet50 => {
            let folder = folder.join("resnet50").join("1");
            let weights = weights.map_or(Weights::Random { seed }, |file| Weights::Safetensors(file.to_owned()));
            resnet50::write(&folder, &weights, labels).map_err(|error| anyhow::anyhow!("{error}"))?;
            print_line(format_args!("wrote {}", escaped(&folder.to_string_lossy())));
        }
    }
    Ok(())
}

/// Fails: TorchScript models need libtorch.
#[cfg(not(feature = "torch"))]
pub(crate) fn write(_: DemoModel, _: &Path, _: Option<&Path>, _: Option<&Path>, _: i64) -> anyhow::Result<()> {
    anyhow::bail!("model demo: this program was built without libtorch; build it with `make build`")
}
