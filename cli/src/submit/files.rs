//! The files to submit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::media_type;

/// A file to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InputFile {
    pub(super) path: PathBuf,
    pub(super) media_type: String,
}

impl InputFile {
    /// The true label: the text after the last `-` of the file's name, without the extension.
    pub(super) fn truth(&self) -> Option<String> {
        let (_, truth) = self.path.file_stem()?.to_str()?.rsplit_once('-')?;
        (!truth.is_empty()).then(|| truth.to_owned())
    }
}

/// All files that `paths` name. The files of a folder are in the order of their names. Hidden files of a folder are left
/// out.
pub(super) fn collect(paths: &[PathBuf], media_type: Option<&str>) -> anyhow::Result<Vec<InputFile>> {
    let mut found = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        if metadata.is_dir() {
            search(path, &mut found)?;
        } else {
            found.push(path.clone());
        }
    }
    if found.is_empty() {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        bail!("no files in {}", paths.join(", "));
    }
    let file = |path: PathBuf| InputFile {
        media_type: media_type.unwrap_or_else(|| media_type::of_file(&path)).to_owned(),
        path,
    };
    Ok(found.into_iter().map(file).collect())
}

fn search(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let reading = || format!("cannot read the folder {}", folder.display());
    let mut entries =
        fs::read_dir(folder).with_context(reading)?.collect::<Result<Vec<_>, _>>().with_context(reading)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            search(&path, found)?;
        } else if kind.is_file() || path.is_file() {
            // A link to a file is used. A link to a folder is not, because it may lead to a parent folder.
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_searched_in_order_and_hidden_files_stay_hidden() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["c.JPG", "a.png", "b/z.txt", "b/.hidden", ".git"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let files = collect(&[folder.path().to_owned()], None).unwrap();
        let names: Vec<_> = files
            .iter()
            .map(|file| (file.path.strip_prefix(folder.path()).unwrap().to_str().unwrap(), file.media_type.as_str()))
            .collect();
        assert_eq!(names, [("a.png", "image/png"), ("b/z.txt", "text/plain"), ("c.JPG", "image/jpeg")]);

        let named = collect(&[folder.path().join(".git")], Some("a/b")).unwrap();
        assert_eq!(named[0].media_type, "a/b");
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = collect(&[folder.path().join("missing.png")], None).unwrap_err();
        assert!(error.to_string().ends_with("missing.png"), "{error}");
        let message = crate::output::message(&error);
        assert!(message.contains("missing.png: No such file"), "{message}");
        let error = collect(&[folder.path().to_owned()], None).unwrap_err();
        assert!(error.to_string().starts_with("no files in "), "{error}");
    }

    #[test]
    fn the_true_label_follows_the_last_dash() {
        let truth = |name: &str| InputFile { path: name.into(), media_type: String::new() }.truth();
        assert_eq!(truth("digits/0007-3.png").as_deref(), Some("3"));
        assert_eq!(truth("tabby-cat-cat.jpg").as_deref(), Some("cat"));
        assert_eq!(truth("plain.png"), None);
        assert_eq!(truth("odd-.png"), None);
    }
}
