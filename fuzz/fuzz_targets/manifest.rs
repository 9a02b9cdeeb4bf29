//! The manifest of a model, `model.yaml`.
//!
//! A rejected manifest has a fault. An accepted one has what the worker relies on.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::{env, fs, process};

use libfuzzer_sys::fuzz_target;
use model::{Manifest, ManifestError, Preprocess};

/// The folder of version 1 of the model `fuzz`.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = env::temp_dir().join(format!("millrace-fuzz-{}/fuzz/1", process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
});

fuzz_target!(|text: &[u8]| {
    fs::write(FOLDER.join("model.yaml"), text).expect("a file in the temporary folder");
    match Manifest::read(&FOLDER) {
        Ok(manifest) => check(&manifest),
        Err(ManifestError { faults, .. }) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.is_empty()), "{faults:?}");
        }
    }
});

fn check(manifest: &Manifest) {
    assert_eq!((manifest.name.as_str(), manifest.version), ("fuzz", 1));
    assert!(!manifest.inputs.is_empty() && !manifest.outputs.is_empty());
    assert!(manifest.batch.max_items >= 1 && manifest.warm_up.free_dimension >= 1);
    if let Preprocess::Image(step) = &manifest.preprocess {
        assert_eq!(manifest.inputs.len(), 1);
        assert!(manifest.inputs[0].takes_shape(&step.shape()));
    }
    let fault = manifest.check("text/plain", b"text").expect_err("no model takes text");
    assert!(!fault.message.is_empty());
}
