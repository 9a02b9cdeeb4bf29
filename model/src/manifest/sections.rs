//! The sections of a manifest, read one at a time.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::fault::Faults;

const SECTIONS: &str = "inputs, outputs, preprocess, postprocess, batch, warm_up";

/// The sections that are not read yet.
pub(super) struct Sections {
    map: Map<String, Value>,
}

impl Sections {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self { map }
    }

    /// Reads an optional section. `None` if it has a fault, which is recorded.
    pub(super) fn take<T: DeserializeOwned + Default>(&mut self, key: &str, faults: &mut Faults) -> Option<T> {
        match self.map.remove(key) {
            None => Some(T::default()),
            Some(value) => read(key, value, faults),
        }
    }

    /// Reads a list that must have an entry. Returns the entries without a fault.
    pub(super) fn list<T: DeserializeOwned>(&mut self, key: &str, faults: &mut Faults) -> Vec<T> {
        match self.map.remove(key) {
            None => faults.add(key, "is missing; expected a list of tensors with name, datatype and shape"),
            Some(Value::Array(entries)) if !entries.is_empty() => {
                let read_entry = |(index, entry)| read(&format!("{key}[{index}]"), entry, faults);
                return entries.into_iter().enumerate().filter_map(read_entry).collect();
            }
            Some(other) => {
                faults.add(
                    key,
                    format_args!("{other} is not a list of at least one tensor with name, datatype and shape"),
                );
            }
        }
        Vec::new()
    }

    /// Records a fault for every key that was not read.
    pub(super) fn reject_unknown_keys(self, faults: &mut Faults) {
        for key in self.map.keys() {
            faults.add(key, format_args!("unknown key; expected one of {SECTIONS}"));
        }
    }
}

fn read<T: DeserializeOwned>(key: &str, value: Value, faults: &mut Faults) -> Option<T> {
    match serde_json::from_value(value) {
        Ok(section) => Some(section),
        Err(error) => {
            faults.add(key, error);
            None
        }
    }
}
