//! The reference of a settings type, in Markdown: a table per section, made from the JSON Schema.

use std::collections::VecDeque;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::schema::resolve;

/// Stands for a key that the user chooses.
const ANY_KEY: &str = "NAME";

/// A mapping whose keys are listed in the schema.
struct Section<'a> {
    /// Its key, as `pools.NAME.jobs`; empty for the whole document.
    key: String,
    about: &'a str,
    properties: &'a Map<String, Value>,
    required: &'a [Value],
    /// The defaults of its properties where the properties have none of their own.
    defaults: Option<&'a Value>,
}

/// One setting, or a section of its own.
struct Setting<'a> {
    /// The schema of this key, with its description and its default.
    property: &'a Value,
    /// The schema of the value, behind references.
    node: &'a Value,
    is_optional: bool,
}

/// Writes one section per mapping, with one row per key. The outermost section comes first.
pub(super) fn reference(schema: &Value) -> String {
    let mut text = String::new();
    let mut waiting = VecDeque::from_iter(section(schema, String::new(), schema, None));
    while let Some(section) = waiting.pop_front() {
        heading(&mut text, &section);
        let mut inner = Vec::new();
        for (name, property) in section.properties {
            let Some((node, is_optional)) = resolve(schema, property) else { continue };
            let setting = Setting { property, node, is_optional };
            inner.extend(row(&mut text, schema, &section, name, &setting));
        }
        // Depth first: the inner sections of a section follow it directly.
        for section in inner.into_iter().rev() {
            waiting.push_front(section);
        }
    }
    text
}

fn section<'a>(schema: &'a Value, key: String, node: &'a Value, defaults: Option<&'a Value>) -> Option<Section<'a>> {
    let (node, _) = resolve(schema, node)?;
    let properties = node.get("properties")?.as_object()?;
    let required = node.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Some(Section { key, about: description(node), properties, required, defaults })
}

fn heading(text: &mut String, section: &Section<'_>) {
    // Writing to a string cannot fail.
    if !section.key.is_empty() {
        let _ = write!(text, "\n## {}\n\n{}\n", section.key, plain(section.about));
    }
    let _ = write!(text, "\n| key | type | default | meaning |\n|---|---|---|---|\n");
}

/// Adds a row for a key. Returns the section of the key, if its value has keys of its own.
fn row<'a>(
    text: &mut String,
    schema: &'a Value,
    parent: &Section<'a>,
    name: &str,
    setting: &Setting<'a>,
) -> Option<Section<'a>> {
    let Setting { property, node, is_optional } = *setting;
    let key = if parent.key.is_empty() { name.to_owned() } else { format!("{}.{name}", parent.key) };
    let about = [property, node].into_iter().map(description).find(|text| !text.is_empty()).unwrap_or_default();
    let default = property.get("default").or_else(|| parent.defaults?.get(name));
    let inner = match node.get("additionalProperties") {
        // The user chooses the keys; each value is a mapping with listed keys.
        Some(value @ Value::Object(_)) => section(schema, format!("{key}.{ANY_KEY}"), value, None),
        _ => section(schema, key, node, default),
    };
    let (kind, default) = match &inner {
        Some(inner) => (format!("[section](#{})", anchor(&inner.key)), String::new()),
        None => {
            let is_required = parent.required.iter().any(|required| required == name);
            (type_name(schema, property, is_optional), shown_default(default, is_required))
        }
    };
    let _ = writeln!(text, "| `{name}` | {} | {default} | {} |", cell(&kind), cell(&plain(about)));
    inner
}

/// The anchor that Markdown renderers make from a heading: lower case, without dots.
fn anchor(key: &str) -> String {
    key.to_lowercase().replace('.', "")
}

fn shown_default(default: Option<&Value>, is_required: bool) -> String {
    match default {
        Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(Value::Null) | None if is_required => "required".to_owned(),
        Some(Value::Null) | None => "none".to_owned(),
        Some(Value::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(Value::Object(members)) if members.is_empty() => "none".to_owned(),
        Some(other) => format!("`{other}`"),
    }
}

/// The type of a value, in words.
fn type_name(schema: &Value, property: &Value, is_optional: bool) -> String {
    match definition(property).as_deref() {
        Some("Period") => return "duration".to_owned(),
        Some("ByteSize") => return "size".to_owned(),
        _ => {}
    }
    let Some((node, _)) = resolve(schema, property) else { return "one of several forms".to_owned() };
    if node.get("writeOnly").is_some() {
        return "secret text".to_owned();
    }
    let choices = choices(node);
    if !choices.is_empty() {
        return choices.join(", ");
    }
    let kinds: Vec<&str> = match node.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
        _ => Vec::new(),
    };
    let names: Vec<String> = kinds.into_iter().map(|kind| simple_type(schema, node, kind)).collect();
    match names.len() {
        0 if is_optional => "any value".to_owned(),
        0 => "one of several forms".to_owned(),
        _ => names.join(" or "),
    }
}

fn simple_type(schema: &Value, node: &Value, kind: &str) -> String {
    let of = |keyword: &str| match node.get(keyword) {
        Some(value @ Value::Object(_)) => type_name(schema, value, false),
        _ => "any value".to_owned(),
    };
    match kind {
        "string" => "text".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "array" => format!("list of: {}", of("items")),
        "object" => format!("mapping of names to: {}", of("additionalProperties")),
        "integer" | "number" => {
            let name = if kind == "integer" { "whole number" } else { "number" };
            let limit = |keyword: &str| node.get(keyword).filter(|limit| limit.as_f64() != Some(0.0));
            match (limit("minimum"), limit("maximum").filter(|_| node.get("format").is_none())) {
                (Some(least), Some(most)) => format!("{name} from {least} to {most}"),
                (Some(least), None) => format!("{name}, at least {least}"),
                (None, Some(most)) => format!("{name}, at most {most}"),
                (None, None) => name.to_owned(),
            }
        }
        other => other.to_owned(),
    }
}

/// The allowed values of a setting that is one of several texts.
fn choices(node: &Value) -> Vec<String> {
    let quoted = |value: &Value| value.as_str().map(|text| format!("`{text}`"));
    if let Some(options) = node.get("enum").and_then(Value::as_array) {
        return options.iter().filter_map(quoted).collect();
    }
    let forms = node.get("oneOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    forms.iter().filter_map(|form| form.get("const").map_or_else(|| choices(form).first().cloned(), quoted)).collect()
}

/// The name of the definition that a property refers to.
fn definition(property: &Value) -> Option<String> {
    let reference = |node: &Value| {
        let name = node.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        Some(name.to_owned())
    };
    let forms = property.get("anyOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    reference(property).or_else(|| forms.iter().find_map(reference))
}

fn description(node: &Value) -> &str {
    node.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// A description on one line, without the links of rustdoc.
fn plain(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace("[`", "`").replace("`]", "`")
}

/// Escapes a text so that it does not end its table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
