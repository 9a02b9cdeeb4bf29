//! Lays the sources of a configuration over each other.

use serde_json::{Map, Value};

use super::schema::{Text, text_at};
use super::{Faults, Sources};

/// What an environment variable that is a setting starts with.
pub const ENVIRONMENT_PREFIX: &str = "MILLRACE__";

/// One document out of all sources; what cannot be read is a fault and left out.
pub(super) fn merge(sources: &Sources, schema: &Value, faults: &mut Faults) -> Value {
    let mut document = match &sources.file {
        Some(path) => read(path, faults),
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
    document
}

fn read(path: &std::path::Path, faults: &mut Faults) -> Value {
    let empty = Value::Object(Map::new());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            faults.add(path.display(), format_args!("cannot be read: {error}"));
            return empty;
        }
    };
    match yaml(&text) {
        Ok(Value::Null) => empty,
        Ok(document @ Value::Object(_)) => document,
        Ok(_) => {
            faults.add(path.display(), "is not a mapping of keys to values");
            empty
        }
        Err(error) => {
            faults.add(path.display(), format_args!("is not YAML: {error}"));
            empty
        }
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
