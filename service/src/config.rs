//! One YAML file, overridden by the environment, overridden by flags. All faults are reported at once.
//!
//! The JSON Schema of the settings type refuses unknown keys and values out of range. The same schema is published for
//! editors. Rules that span several keys are in the type's own [`Config::check`].
//!
//! A setting with a secret can name a file: `${file:PATH}`. Other settings cannot.
//!
//! A schema can contain the text of its rule as `x-rule` (`is not a duration such as 5s`). Without it, the text follows
//! from the keyword that failed.

mod fault;
mod files;
mod layers;
mod reference;
mod schema;
mod secret;
mod secret_url;
mod validation;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use fault::{Fault, Faults};
pub use layers::ENVIRONMENT_PREFIX;
pub use secret::Secret;
pub use secret_url::SecretUrl;

/// The settings of a whole program.
pub trait Config: DeserializeOwned + JsonSchema {
    /// Adds faults that a schema cannot express, such as a broken rule that spans two keys.
    fn check(&self, _faults: &mut Faults) {}
}

/// The sources of settings. A later source overrides an earlier one.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A YAML file. `None`: defaults only.
    pub file: Option<PathBuf>,
    /// Environment variables. Only names that start with [`ENVIRONMENT_PREFIX`] are settings; two underscores separate
    /// keys: `MILLRACE__GATEWAY__LISTEN=127.0.0.1:8080`. A key in camel case is written as it is.
    pub environment: Vec<(String, String)>,
    /// Pairs such as `gateway.listen=127.0.0.1:8080`.
    pub flags: Vec<String>,
}

impl Sources {
    /// A file and flags, and the environment of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        // A name or value that is not Unicode cannot be a setting.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { file, environment: std::env::vars_os().filter_map(text).collect(), flags }
    }
}

/// Reads the settings. The error contains all faults.
pub fn load<T: Config>(sources: &Sources) -> Result<T, Faults> {
    let schema = schema::<T>();
    let mut faults = Faults::default();
    let Some(mut document) = layers::merge(sources, &schema, &mut faults) else { return Err(faults) };
    files::expand(&schema, &mut document, &mut faults);
    let was_validated = validation::validate(&schema, &mut document, &mut faults);
    if !was_validated {
        return Err(faults);
    }
    // Even with faults, the settings are read if possible, so that faults of `Config::check` are reported too.
    match serde_path_to_error::deserialize::<_, T>(document) {
        Ok(settings) => {
            settings.check(&mut faults);
            faults.none_or(settings)
        }
        Err(error) => {
            if faults.is_empty() {
                let path = error.path().to_string();
                faults.add(if path == "." { "settings" } else { &path }, error.into_inner());
            }
            Err(faults)
        }
    }
}

/// The JSON Schema (2020-12) of the settings.
pub fn schema<T: JsonSchema>() -> Value {
    schema::schema::<T>()
}

/// The reference of the settings in Markdown: a table of keys, types, defaults and meanings for each section. It has no
/// title of its own.
pub fn reference<T: JsonSchema>() -> String {
    reference::reference(&schema::<T>())
}

#[cfg(test)]
mod tests;
