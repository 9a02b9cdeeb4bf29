//! `${file:PATH}` in a setting: the contents of a file in the place of a secret.
//!
//! Only settings that hold a secret may have it. Every other setting may be in a log line or in an error, so it would show
//! the contents.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::Faults;
use super::schema::node_at;

/// The keyword of a schema whose texts keep their references, because they are read when they are used.
pub(super) const KEEPS_REFERENCES: &str = "x-keeps-file-references";

const OPEN: &str = "${file:";
const CLOSE: &str = "}";

/// The largest file.
const MAX_BYTES: u64 = 64 * 1024;

/// Replaces the references in secrets by the contents of the files.
pub(super) fn expand(schema: &Value, document: &mut Value, faults: &mut Faults) {
    expand_at(schema, document, &mut Vec::new(), faults);
}

fn expand_at(schema: &Value, value: &mut Value, keys: &mut Vec<String>, faults: &mut Faults) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                keys.push(key.clone());
                expand_at(schema, member, keys, faults);
                keys.pop();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| expand_at(schema, item, keys, faults)),
        Value::String(text) if has_reference(text) => {
            let has = |keyword| node_at(schema, keys).is_some_and(|(node, _)| node.get(keyword).is_some());
            if has(KEEPS_REFERENCES) {
                return;
            }
            if !has("writeOnly") {
                let rule = "has ${file:PATH}, which only settings with a secret may have";
                faults.refuse(keys.join("."), format_args!("{text:?}"), rule);
                return;
            }
            match expanded(text, str::to_owned) {
                Ok(contents) => *text = contents,
                Err(fault) => faults.add(keys.join("."), fault),
            }
        }
        _ => {}
    }
}

pub(super) fn has_reference(text: &str) -> bool {
    text.contains(OPEN)
}

/// The path of the file, if the text is the contents of one file.
pub(super) fn only_file(text: &str) -> Option<&str> {
    text.strip_prefix(OPEN)?.strip_suffix(CLOSE).filter(|path| !path.contains(CLOSE))
}

/// `text` with the contents of its files. Contents that are only a part of the text are written by `as_part`. The error
/// is a fault without the contents.
pub(super) fn expanded(text: &str, as_part: impl Fn(&str) -> String) -> Result<String, String> {
    if let Some(path) = only_file(text) {
        return contents(Path::new(path));
    }
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some((before, reference)) = rest.split_once(OPEN) {
        let Some((path, after)) = reference.split_once(CLOSE) else {
            return Err(format!("has {OPEN} without {CLOSE}: write ${{file:PATH}}"));
        };
        expanded.push_str(before);
        expanded.push_str(&as_part(&contents(Path::new(path))?));
        rest = after;
    }
    Ok(expanded + rest)
}

/// The text of a file, without one line break at its end.
fn contents(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("{path:?} cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("{path:?} has more than {MAX_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{path:?} is not a text in UTF-8"))?;
    let line = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() { Err(format!("{path:?} is empty")) } else { Ok(line.to_owned()) }
}
