//! Lays the sources of a configuration over each other.

use std::path::Path;

use serde_json::{Map, Value};

use super::schema::{Text, text_at};
use super::{Faults, Sources};

/// What an environment variable that is a setting starts with.
pub const ENVIRONMENT_PREFIX: &str = "MILLRACE__";

/// One document out of all sources; a variable or a flag that cannot be read is a fault and left out. `None`: the file
/// cannot be read, and without it every other fault would be a guess.
pub(super) fn merge(sources: &Sources, schema: &Value, faults: &mut Faults) -> Option<Value> {
    let mut document = match &sources.file {
        Some(path) => match read(path) {
            Ok(document) => document,
            Err(message) => {
                faults.add(path.display(), message);
                return None;
            }
        },
        None => Value::Object(Map::new()),
    };
    let mut environment: Vec<_> = sources
        .environment
        .iter()
        .filter_map(|(name, value)| Some((name, name.strip_prefix(ENVIRONMENT_PREFIX)?, value)))
        .collect();
    // A process's environment has no order; the result must not depend on it.
    environment.sort();
    for (name, key, value) in environment {
        let keys: Vec<String> = key.split("__").map(str::to_lowercase).collect();
        if keys.iter().any(String::is_empty) {
            faults.add(name, format_args!("is not {ENVIRONMENT_PREFIX}KEY or {ENVIRONMENT_PREFIX}KEY__KEY"));
        } else {
            set(&mut document, &keys, scalar(value, text_at(schema, &keys)));
        }
    }
    for flag in &sources.flags {
        // Only the key is ever shown: the rest may be a password.
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) || !flag.contains('=') {
            faults.refuse("--set", format_args!("{key:?}"), "is not key=value or key.key=value");
        } else {
            set(&mut document, &keys, scalar(value, text_at(schema, &keys)));
        }
    }
    Some(document)
}

/// What the file says, or what is wrong with it.
fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    match yaml(&text) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(document @ Value::Object(_)) => Ok(document),
        Ok(_) => Err("is not a mapping of keys to values".to_owned()),
        Err(error) => Err(fault(&error)),
    }
}

/// In our words where the library's would be advice for its callers.
fn fault(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("the key {key:?}"));
            format!("line {}, column {}: {key} stands twice", location.line(), location.column())
        }
        error => format!("is not YAML: {error}"),
    }
}

/// Without the excerpt that usually comes with an error: the lines around it may hold a password. `yes`, `no`, `on` and
/// `off` are words, as in YAML 1.2.
fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true, with_snippet: false })
}

/// A value from the environment or a flag. Where the setting is a text, `0123` and `true` are texts, without quotes.
fn scalar(value: &str, text: Text) -> Value {
    match (text, value) {
        (Text::Optional, "null" | "~") => Value::Null,
        (Text::Optional | Text::Always, _) => Value::String(value.to_owned()),
        (Text::No, _) => yaml(value).unwrap_or_else(|_| Value::String(value.to_owned())),
    }
}

fn set(document: &mut Value, keys: &[String], value: Value) {
    let mut place = document;
    for key in keys {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(members) = place else { return };
        place = members.entry(key.clone()).or_insert(Value::Null);
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(text: &str) -> String {
        fault(&yaml(text).unwrap_err())
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_its_line() {
        let fault = fault_of("gateway:\n  listen: a\n  port: 1\n  listen: b\n");
        assert!(fault.starts_with("line 4, column "), "{fault}");
        assert!(fault.ends_with(": the key \"listen\" stands twice"), "{fault}");
    }

    #[test]
    fn other_faults_of_a_file_keep_the_place_that_the_library_names() {
        let fault = fault_of("gateway: {listen: a\n");
        assert!(fault.starts_with("is not YAML: ") && fault.contains("line"), "{fault}");
    }

    #[test]
    fn without_its_file_no_document_is_made() {
        let sources = Sources {
            file: Some("/nowhere/millrace.yaml".into()),
            flags: vec!["gateway".to_owned()],
            ..Sources::default()
        };
        let mut faults = Faults::default();
        assert_eq!(merge(&sources, &Value::Bool(true), &mut faults), None);
        assert_eq!(faults.iter().count(), 1, "{faults}");
    }
}
