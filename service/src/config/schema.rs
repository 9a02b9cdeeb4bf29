//! The strict JSON Schema of a settings type, and lookups in it.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// Whether the value of a setting is a text even if it looks like a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// It is not a text, or it is unknown.
    No,
    /// A text.
    Always,
    /// A text or nothing.
    Optional,
}

pub(super) fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(tighten));
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Closes every mapping whose keys are listed. Otherwise a missing `deny_unknown_fields` would silently ignore unknown
/// keys. Also limits integers to the range of their type.
fn tighten(schema: &mut Schema) {
    let composed = ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|keyword| schema.get(*keyword).is_some());
    let open = schema.get("additionalProperties").is_none() && schema.get("unevaluatedProperties").is_none();
    if schema.get("properties").is_some() && open && !composed {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    let largest: Option<u64> = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => Some(u32::MAX.into()),
        Some("int32") => Some(i32::MAX.unsigned_abs().into()),
        _ => None,
    };
    if let Some(largest) = largest
        && schema.get("maximum").is_none()
    {
        schema.insert("maximum".to_owned(), largest.into());
    }
}

/// The schema of the setting under `keys`, behind references, and whether the setting is optional.
pub(super) fn node_at<'a>(schema: &'a Value, keys: &[String]) -> Option<(&'a Value, bool)> {
    let mut place = schema;
    for key in keys {
        let (node, _) = resolve(schema, place)?;
        let named = node.get("properties").and_then(|members| members.get(key));
        place = named.or_else(|| node.get("additionalProperties"))?;
    }
    resolve(schema, place)
}

/// Whether the setting under `keys` is a text.
pub(super) fn text_at(schema: &Value, keys: &[String]) -> Text {
    let Some((node, optional)) = node_at(schema, keys) else { return Text::No };
    match node.get("type") {
        Some(Value::String(kind)) if kind == "string" && optional => Text::Optional,
        Some(Value::String(kind)) if kind == "string" => Text::Always,
        Some(Value::Array(kinds)) if kinds.iter().all(|kind| kind == "string" || kind == "null") => Text::Optional,
        _ => Text::No,
    }
}

/// Follows references and the two forms of an optional setting. Also returns whether it was optional. `None`: there are
/// several forms.
pub(super) fn resolve<'a>(schema: &'a Value, mut node: &'a Value) -> Option<(&'a Value, bool)> {
    let mut optional = false;
    loop {
        if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
            node = schema.pointer(reference.strip_prefix('#')?)?;
        } else if let Some(forms) = node.get("anyOf").and_then(Value::as_array) {
            let mut something = forms.iter().filter(|form| form.get("type").is_none_or(|kind| kind != "null"));
            match (something.next(), something.next()) {
                (Some(only), None) => node = only,
                _ => return None,
            }
            optional = true;
        } else {
            return Some((node, optional));
        }
    }
}
