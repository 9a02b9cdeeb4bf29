//! From a model source to a model.

use std::sync::Arc;

use model::{Manifest, ManifestError, ModelSource};

use super::interface::Model;
use super::settings::ModelSettings;

/// Reads the manifest and checks that the model's file exists. [`Model::instance`] loads the weights later.
pub fn open(source: &ModelSource, settings: &ModelSettings) -> Result<Arc<dyn Model>, ManifestError> {
    match source {
        ModelSource::Echo(echo) => Ok(Arc::new(echo.clone())),
        ModelSource::Folder(folder) => open_folder(Manifest::read(folder)?, settings),
    }
}

#[cfg(feature = "torch")]
fn open_folder(manifest: Manifest, settings: &ModelSettings) -> Result<Arc<dyn Model>, ManifestError> {
    Ok(Arc::new(super::torch::TorchModel::open(manifest, settings.clone())?))
}

#[cfg(not(feature = "torch"))]
fn open_folder(manifest: Manifest, _: &ModelSettings) -> Result<Arc<dyn Model>, ManifestError> {
    let file = manifest.model_file()?;
    let fault = "this program was built without libtorch and runs only the model echo; \
                 build it with `cargo build --release --features torch`";
    Err(ManifestError::new(file, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_model_opens_without_a_file() {
        let source: ModelSource = "echo".parse().unwrap();
        assert_eq!(open(&source, &ModelSettings::default()).unwrap().max_batch_items(), 256);
    }

    #[cfg(not(feature = "torch"))]
    #[test]
    fn without_libtorch_a_folder_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("squares/1");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("model.pt"), b"").unwrap();
        let yaml =
            "inputs: [{name: x, datatype: FP32, shape: [2]}]\noutputs: [{name: y, datatype: FP32, shape: [2]}]\n";
        std::fs::write(version.join("model.yaml"), yaml).unwrap();
        let source = ModelSource::Folder(version);
        let error = open(&source, &ModelSettings::default()).err().unwrap().to_string();
        assert!(error.contains("--features torch"), "{error}");
        assert!(source.input_check().is_ok());
    }
}
