//! Validates a document with a JSON Schema, and reports the faults by the keys of the document.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

use super::Faults;

/// Adds the faults of `document` to `faults`, and removes unknown keys from it. Returns `false` if the document cannot
/// be validated.
pub(super) fn validate(schema: &Value, document: &mut Value, faults: &mut Faults) -> bool {
    let validator = match jsonschema::draft202012::new(schema) {
        Ok(validator) => validator,
        Err(error) => {
            faults.add("schema", error);
            return false;
        }
    };
    let mut unknown = Vec::new();
    for error in validator.iter_errors(document) {
        if let Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } = error.kind() {
            unknown.push((error.instance_path().as_str().to_owned(), unexpected.clone()));
        }
        report(&error, schema, faults);
    }
    for (place, names) in unknown {
        if let Some(Value::Object(members)) = document.pointer_mut(&place) {
            members.retain(|name, _| !names.contains(name));
        }
    }
    true
}

fn report(error: &ValidationError<'_>, schema: &Value, faults: &mut Faults) {
    let place = dotted(error.instance_path().as_str());
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for name in unexpected {
                faults.add(member(&place, name), unknown_key(name, node(error, schema)));
            }
        }
        Kind::Required { property } => {
            faults.add(member(&place, property.as_str().unwrap_or_default()), "is missing");
        }
        Kind::PropertyNames { error: inner } => {
            let name = inner.instance().as_str().unwrap_or_default().to_owned();
            let rule = own_rule(error, schema).unwrap_or_else(|| rule(inner, schema));
            faults.refuse(member(&place, &name), format_args!("the key {name:?}"), rule);
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } if own_rule(error, schema).is_none() => {
            report_alternatives(error, context, schema, faults);
        }
        _ => faults.refuse(
            if place.is_empty() { "settings" } else { &place },
            shown(error.instance(), node(error, schema)),
            rule(error, schema),
        ),
    }
}

/// Reports the faults of the form that the user probably meant, where several forms are allowed.
fn report_alternatives(
    error: &ValidationError<'_>,
    context: &[Vec<ValidationError<'static>>],
    schema: &Value,
    faults: &mut Faults,
) {
    let forms: Vec<_> = context.iter().filter(|errors| !errors.iter().any(expects_null)).collect();
    let here = error.instance_path().as_str();
    let meant: Vec<_> = forms.iter().filter(|errors| !errors.iter().any(|error| other_form(error, here))).collect();
    let reported = match (&forms[..], &meant[..]) {
        ([only], _) => Some(*only),
        (_, [only]) => Some(**only),
        _ => None,
    };
    if let Some(errors) = reported {
        errors.iter().for_each(|error| report(error, schema, faults));
        return;
    }
    let choices: Vec<_> = forms.iter().flat_map(|errors| errors.iter().find_map(choice)).collect();
    match choices.first() {
        Some((first, _))
            if choices.len() == forms.len() && choices.iter().all(|(error, _)| same_place(error, first)) =>
        {
            let names: Vec<_> = choices.iter().map(|(_, names)| names.as_str()).collect();
            let rule = format!("is not one of {}", names.join(", "));
            faults.refuse(dotted(first.instance_path().as_str()), shown(first.instance(), None), rule);
        }
        _ => faults.refuse(dotted(here), kind_of(error.instance()), "has none of the allowed forms"),
    }
}

/// The form of an optional setting that is absent.
fn expects_null(error: &ValidationError<'static>) -> bool {
    matches!(error.kind(), Kind::Type { kind: TypeKind::Single(kind) } if kind.to_string() == "null")
}

/// Whether the error shows that another form was meant: the value has another type, or its tag names another form.
fn other_form(error: &ValidationError<'_>, here: &str) -> bool {
    let place = error.instance_path().as_str();
    match error.kind() {
        Kind::Type { .. } => place == here,
        Kind::Constant { .. } | Kind::Enum { .. } => {
            place.strip_prefix(here).is_some_and(|rest| rest.matches('/').count() <= 1)
        }
        _ => false,
    }
}

fn choice<'a>(error: &'a ValidationError<'static>) -> Option<(&'a ValidationError<'static>, String)> {
    match error.kind() {
        Kind::Constant { expected_value } => Some((error, plain(expected_value))),
        Kind::Enum { options } => Some((error, list(options))),
        _ => None,
    }
}

fn same_place(one: &ValidationError<'_>, other: &ValidationError<'_>) -> bool {
    one.instance_path().as_str() == other.instance_path().as_str()
}

fn rule(error: &ValidationError<'_>, schema: &Value) -> String {
    if let Some(rule) = own_rule(error, schema) {
        return rule;
    }
    match error.kind() {
        Kind::Minimum { limit } => format!("is not at least {limit}"),
        Kind::Maximum { limit } => format!("is not at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("is not more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("is not less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("is not a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("is not at least {limit} characters long"),
        Kind::MaxLength { limit } => format!("is not at most {limit} characters long"),
        Kind::MinItems { limit } | Kind::MinProperties { limit } => format!("has fewer than {limit} entries"),
        Kind::MaxItems { limit } | Kind::MaxProperties { limit } => format!("has more than {limit} entries"),
        Kind::UniqueItems => "has an entry twice".to_owned(),
        Kind::Constant { expected_value } => format!("is not {}", plain(expected_value)),
        Kind::Enum { options } => format!("is not one of {}", list(options)),
        Kind::Pattern { pattern } => format!("does not match {pattern}"),
        Kind::Format { format } => format!("is not a valid {format}"),
        Kind::Type { kind: TypeKind::Single(kind) } => format!("is not {}", type_name(&kind.to_string())),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => {
            // The text does not list the `null` of an optional setting, because it does not help.
            let kinds = kinds.into_iter().map(|kind| kind.to_string()).filter(|kind| kind != "null");
            let names: Vec<_> = kinds.map(|kind| type_name(&kind).to_owned()).collect();
            format!("is not {}", names.join(" or "))
        }
        _ => "is not allowed".to_owned(),
    }
}

/// The text in the schema, `x-rule`.
fn own_rule(error: &ValidationError<'_>, schema: &Value) -> Option<String> {
    Some(node(error, schema)?.get("x-rule")?.as_str()?.to_owned())
}

/// The schema that holds the keyword which failed.
fn node<'a>(error: &ValidationError<'_>, schema: &'a Value) -> Option<&'a Value> {
    let (parent, _) = error.schema_path().as_str().rsplit_once('/')?;
    schema.pointer(parent)
}

fn unknown_key(name: &str, node: Option<&Value>) -> String {
    let members = node.and_then(|node| node.get("properties")).and_then(Value::as_object);
    let allowed = members.into_iter().flat_map(|members| members.keys());
    let near = allowed.map(|allowed| (strsim::damerau_levenshtein(allowed, name), allowed)).min();
    match near {
        // If more than half of the name differs, it is not a typing mistake.
        Some((distance, meant)) if distance * 2 <= meant.len().max(2) => {
            format!("unknown key (did you mean {meant:?}?)")
        }
        _ => "unknown key".to_owned(),
    }
}

/// A value as a fault shows it: shortened, and hidden if it is a secret or may contain one.
fn shown(value: &Value, node: Option<&Value>) -> String {
    let secret = node.and_then(|node| node.get("writeOnly")).is_some();
    match value {
        _ if secret => "***".to_owned(),
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned(),
        _ => {
            let text = value.to_string();
            if text.chars().count() <= 80 { text } else { text.chars().take(77).chain("...".chars()).collect() }
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn type_name(name: &str) -> &str {
    match name {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a mapping",
        "null" => "nothing",
        other => other,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(options: &Value) -> String {
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    options.iter().map(plain).collect::<Vec<_>>().join(", ")
}

/// `/pools/a~1b/0` as `pools.a/b[0]`.
fn dotted(pointer: &str) -> String {
    let mut text = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            text.push_str(&format!("[{part}]"));
        } else {
            text = member(&text, &part);
        }
    }
    text
}

fn member(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}
