//! The folder of one version of a model: `models/<name>/<version>/`.

use std::fs;
use std::path::{Path, PathBuf};

use super::fault::ManifestError;

/// The folder of one version.
pub(super) struct VersionFolder {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) version: u32,
}

impl VersionFolder {
    /// Returns `path` itself if it holds a manifest, else the highest version in it that does.
    pub(super) fn find(path: &Path) -> Result<Self, ManifestError> {
        if !path.is_dir() {
            let expected = "is not a folder; expected models/<name>/<version> with model.yaml and model.pt in it";
            return Err(ManifestError::new(path, expected));
        }
        if path.join("model.yaml").exists() {
            return Self::named(path);
        }
        let versions = fs::read_dir(path).map_err(|error| ManifestError::new(path, error))?;
        let highest = (versions.flatten())
            .filter(|entry| entry.path().join("model.yaml").exists())
            .filter_map(|entry| Some((version(entry.file_name().to_str()?)?, entry.path())))
            .max_by_key(|(version, _)| *version);
        match highest {
            Some((_, folder)) => Self::named(&folder),
            None => {
                let expected = "holds neither model.yaml nor the folder of a version, such as 1, with model.yaml in it";
                Err(ManifestError::new(path, expected))
            }
        }
    }

    fn named(path: &Path) -> Result<Self, ManifestError> {
        // The path may end in `.` or `..`, which are not the name of the folder.
        let whole = path.canonicalize().map_err(|error| ManifestError::new(path, error))?;
        let version = last_name(&whole).and_then(version);
        match (version, whole.parent().and_then(last_name)) {
            (Some(version), Some(name)) => Ok(Self { path: path.to_owned(), name: name.to_owned(), version }),
            _ => Err(ManifestError::new(
                path,
                "is not named models/<name>/<version>, where the version is a whole number from 1",
            )),
        }
    }
}

fn last_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn version(name: &str) -> Option<u32> {
    name.parse().ok().filter(|version| *version >= 1)
}
