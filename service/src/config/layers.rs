//! Merges the sources of a configuration.

use std::path::Path;

use serde_json::{Map, Value};

use super::schema::{Text, text_at};
use super::{Faults, Sources};

/// The prefix of environment variables that are settings.
pub const ENVIRONMENT_PREFIX: &str = "MILLRACE__";

/// Merges all sources into one document. A variable or flag that cannot be parsed is a fault and is left out. `None`: the
/// file cannot be read, so other faults would be misleading.
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
    // The variables are sorted, because the environment has no order and the result must not depend on one.
    environment.sort();
    for (name, key, value) in environment {
        let keys: Vec<String> = key.split("__").map(key_of_variable).collect();
        if keys.iter().any(String::is_empty) {
            faults.add(name, format_args!("is not {ENVIRONMENT_PREFIX}KEY or {ENVIRONMENT_PREFIX}KEY__KEY"));
        } else {
            set(&mut document, &keys, scalar(value, text_at(schema, &keys)));
        }
    }
    for flag in &sources.flags {
        // Faults show only the key, because the value may be a password.
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

/// A key as a part of a variable's name has it. A part in camel case is kept, because some keys are in camel case:
/// `MILLRACE__POOLS__ECHO__SCALE__TRIGGER__maxWorkers`. Any other part becomes lowercase.
fn key_of_variable(part: &str) -> String {
    if part.starts_with(|first: char| first.is_lowercase()) { part.to_owned() } else { part.to_lowercase() }
}

/// The document in the file, or its fault.
fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    match yaml(&text) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(document @ Value::Object(_)) => Ok(document),
        Ok(_) => Err("is not a mapping of keys to values".to_owned()),
        Err(error) => Err(fault(&error)),
    }
}

/// The message of a YAML error. If the library's message is advice for programmers, this function uses its own message.
fn fault(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("the key {key:?}"));
            format!("line {}, column {}: {key} is repeated", location.line(), location.column())
        }
        error => format!("is not YAML: {error}"),
    }
}

/// Parses YAML. Errors have no excerpt of the text, because it may hold a password. `yes`, `no`, `on` and `off` are texts,
/// as in YAML 1.2.
fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true, with_snippet: false })
}

/// The value of a variable or a flag. If the setting is a text, `0123` and `true` are texts and need no quotes.
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
    fn a_repeated_key_is_named_with_its_line() {
        let fault = fault_of("gateway:\n  listen: a\n  port: 1\n  listen: b\n");
        assert!(fault.starts_with("line 4, column "), "{fault}");
        assert!(fault.ends_with(": the key \"listen\" is repeated"), "{fault}");
    }

    #[test]
    fn other_faults_of_a_file_have_the_position_that_the_library_reports() {
        let fault = fault_of("gateway: {listen: a\n");
        assert!(fault.starts_with("is not YAML: ") && fault.contains("line"), "{fault}");
    }

    #[test]
    fn a_variable_can_set_a_key_in_camel_case() {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = vec![
            variable("MILLRACE__POOLS__ECHO__TRIGGER__maxWorkers", "3"),
            variable("MILLRACE__GATEWAY__LISTEN", "a"),
            variable("MILLRACE__Gateway__Limit", "1"),
        ];
        let mut faults = Faults::default();
        let merged = merge(&Sources { environment, ..Sources::default() }, &Value::Bool(true), &mut faults);
        let expected = serde_json::json!({
            "gateway": { "limit": 1, "listen": "a" },
            "pools": { "echo": { "trigger": { "maxWorkers": 3 } } },
        });
        assert_eq!((merged, faults.iter().count()), (Some(expected), 0));
    }

    #[test]
    fn without_the_file_there_is_no_document() {
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
