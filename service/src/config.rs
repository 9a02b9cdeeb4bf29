//! One YAML file, overridden by the environment, overridden by flags; every fault reported at once.
//!
//! The JSON Schema of the settings type is the judge: it refuses unknown keys and values out of range, and the same
//! schema is published for editors. Rules that span several keys are the type's own [`Config::check`].
//!
//! A schema may say its rule in its own words with `x-rule` (`is not a duration such as 5s`); without it the wording
//! is made from the keyword that failed.

mod fault;
mod judge;
mod layers;
mod schema;
mod secret;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use fault::{Fault, Faults};
pub use layers::ENVIRONMENT_PREFIX;
pub use secret::Secret;

/// The settings of a whole program.
pub trait Config: DeserializeOwned + JsonSchema {
    /// Adds the faults that a schema cannot see, such as a rule that spans two keys.
    fn check(&self, _faults: &mut Faults) {}
}

/// Where settings come from, the weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A YAML file. `None`: defaults only.
    pub file: Option<PathBuf>,
    /// Environment variables; those that start with [`ENVIRONMENT_PREFIX`] count, two underscores separating keys:
    /// `MILLRACE__GATEWAY__LISTEN=127.0.0.1:8080`.
    pub environment: Vec<(String, String)>,
    /// Pairs such as `gateway.listen=127.0.0.1:8080`.
    pub flags: Vec<String>,
}

impl Sources {
    /// A file and flags, and the environment of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        // Names and values that are not Unicode cannot be ours.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { file, environment: std::env::vars_os().filter_map(text).collect(), flags }
    }
}

/// Reads the settings, or says everything that is wrong with them.
pub fn load<T: Config>(sources: &Sources) -> Result<T, Faults> {
    let schema = schema::<T>();
    let mut faults = Faults::default();
    let Some(mut document) = layers::merge(sources, &schema, &mut faults) else { return Err(faults) };
    let known = judge::judge(&schema, &mut document, &mut faults);
    if !known {
        return Err(faults);
    }
    // Where something is wrong already, the rest is still read if it can be, so that its own rules are heard too.
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

#[cfg(test)]
mod tests;
