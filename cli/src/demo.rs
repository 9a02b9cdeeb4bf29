//! `millrace model demo`.

use std::path::Path;

use crate::arguments::DemoModel;

/// Writes a demonstration model below `folder`.
#[cfg(feature = "torch")]
pub(crate) fn write(model: DemoModel, folder: &Path, weights: Option<&Path>, seed: u64) -> anyhow::Result<()> {
    match model {
        DemoModel::Resnet50 => {
            let folder = folder.join("resnet50").join("1");
            worker::model::resnet50::write(&folder, weights, seed).map_err(|error| anyhow::anyhow!("{error}"))?;
            println!("{}", folder.display());
        }
    }
    Ok(())
}

/// Says what is missing.
#[cfg(not(feature = "torch"))]
pub(crate) fn write(_: DemoModel, _: &Path, _: Option<&Path>, _: u64) -> anyhow::Result<()> {
    anyhow::bail!("model demo: this program was built without libtorch; build it with `make build`")
}
