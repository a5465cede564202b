//! The keys of `apps.yaml`, from the shape of its types.

use super::{heading, row};
use serde_json::Value;
use std::collections::BTreeMap;

pub fn write(text: &mut String) {
    let schema = offbuild::config::shape();
    let definitions = schema["$defs"].as_object().unwrap();
    let mut places = BTreeMap::new();
    walk(schema, definitions, "", &mut Vec::new(), &mut places);
    text.push_str("\n## Keys of apps.yaml\n\nEvery key is optional; `apps.example.yaml` explains them at length. `*` stands for a name.\n");
    text.push_str("Without a default here, nothing is set, or the description says what holds.\n\n### The file\n\n");
    table(text, schema, definitions);
    for (name, definition) in definitions {
        let Some(_) = definition["properties"].as_object() else { continue };
        let places: Vec<String> = places.get(name.as_str()).into_iter().flatten().map(|place| format!("`{place}`")).collect();
        assert!(!places.is_empty(), "`{name}` is used nowhere");
        let about = definition["description"].as_str().unwrap_or_default();
        text.push_str(&format!("\n### Keys: {}\n\n{about} In {}.\n\n", name.to_lowercase(), places.join(", ")));
        table(text, definition, definitions);
    }
}

/// Notes where each object stands in the file.
fn walk<'a>(
    schema: &'a Value,
    definitions: &'a serde_json::Map<String, Value>,
    place: &str,
    inside: &mut Vec<&'a str>,
    places: &mut BTreeMap<&'a str, Vec<String>>,
) {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        let (name, definition) = definitions.get_key_value(name).unwrap();
        if inside.contains(&name.as_str()) {
            return;
        }
        let known = places.entry(name).or_default();
        if !known.iter().any(|known| known == place) {
            known.push(place.to_owned());
        }
        inside.push(name);
        walk(definition, definitions, place, inside, places);
        inside.pop();
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let below = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        walk(value, definitions, &below, inside, places);
    }
    for alternative in ["anyOf", "oneOf"].iter().filter_map(|key| schema[key].as_array()).flatten() {
        walk(alternative, definitions, place, inside, places);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], definitions, &format!("{place}.*"), inside, places);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], definitions, place, inside, places);
    }
}

fn table(text: &mut String, object: &Value, definitions: &serde_json::Map<String, Value>) {
    heading(text, &["key", "type", "default", "what"]);
    for (key, value) in object["properties"].as_object().unwrap() {
        let default = match &value["default"] {
            Value::Null | Value::Object(_) => String::new(),
            Value::Array(list) if list.is_empty() => "`[]`".to_owned(),
            default => format!("`{default}`"),
        };
        let about = value["description"].as_str().unwrap_or_else(|| panic!("`{key}` has no description"));
        row(text, &[&format!("`{key}`"), &kind(value, definitions), &default, about]);
    }
}

/// The type in words.
fn kind(schema: &Value, definitions: &serde_json::Map<String, Value>) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        let definition = &definitions[name];
        return if definition["properties"].is_object() {
            format!("[{0}](#keys-{0})", name.to_lowercase())
        } else {
            kind(definition, definitions)
        };
    }
    if let Some(value) = schema.get("const") {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return match schema["description"].as_str() {
            // A key's own description stands beside it.
            Some(about) if schema["type"] == "string" => format!("`{value}` ({})", about.trim_end_matches('.')),
            _ => format!("`{value}`"),
        };
    }
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .filter(|word| !word.is_null())
            .map(|word| format!("`{}`", word.as_str().unwrap()))
            .collect::<Vec<_>>()
            .join(", ");
    }
    let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema[key].as_array());
    if let Some(alternatives) = alternatives {
        let some = alternatives.iter().filter(|alternative| alternative["type"] != "null");
        return some.map(|alternative| kind(alternative, definitions)).collect::<Vec<_>>().join(", or ");
    }
    if schema["items"].is_object() {
        return format!("list of {}", kind(&schema["items"], definitions));
    }
    if schema["additionalProperties"].is_object() {
        return format!("names to {}", kind(&schema["additionalProperties"], definitions));
    }
    match &schema["type"] {
        Value::String(word) => word.clone(),
        Value::Array(words) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).filter(|word| *word != "null").collect();
            words.join(", ")
        }
        _ => panic!("a type nobody told this test of: {schema}"),
    }
}
