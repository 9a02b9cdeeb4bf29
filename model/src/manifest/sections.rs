//! The sections of a manifest, read one by one.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::fault::Faults;

const KNOWN: &str = "inputs, outputs, preprocess, postprocess, batch, warm_up";

/// What is left of a manifest to read.
pub(super) struct Sections {
    map: Map<String, Value>,
}

impl Sections {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self { map }
    }

    /// A section that may be left out. Nothing when it is at fault, which is then noted.
    pub(super) fn take<T: DeserializeOwned + Default>(&mut self, key: &str, faults: &mut Faults) -> Option<T> {
        match self.map.remove(key) {
            None => Some(T::default()),
            Some(value) => read(key, value, faults),
        }
    }

    /// A list that must have an entry; holds those that are without fault.
    pub(super) fn list<T: DeserializeOwned>(&mut self, key: &str, faults: &mut Faults) -> Vec<T> {
        match self.map.remove(key) {
            None => faults.note(key, "is missing; expected a list of tensors with name, datatype and shape"),
            Some(Value::Array(entries)) if !entries.is_empty() => {
                let read_entry = |(index, entry)| read(&format!("{key}[{index}]"), entry, faults);
                return entries.into_iter().enumerate().filter_map(read_entry).collect();
            }
            Some(other) => {
                faults.note(
                    key,
                    format_args!("{other} is not a list of at least one tensor with name, datatype and shape"),
                );
            }
        }
        Vec::new()
    }

    /// Notes every key that nothing asked for.
    pub(super) fn refuse_the_rest(self, faults: &mut Faults) {
        for key in self.map.keys() {
            faults.note(key, format_args!("unknown key; expected one of {KNOWN}"));
        }
    }
}

fn read<T: DeserializeOwned>(key: &str, value: Value, faults: &mut Faults) -> Option<T> {
    match serde_json::from_value(value) {
        Ok(section) => Some(section),
        Err(error) => {
            faults.note(key, error);
            None
        }
    }
}
