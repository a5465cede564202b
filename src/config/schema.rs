//! The JSON Schemas of `apps.yaml`, both made of the types in `file`.
//!
//! [`shape`] is what the types say; `check` walks a file along it. [`schema`] is what editors are given: the same, and besides it
//! whatever the reading allows everywhere, so that no editor marks what offbuild takes. The tests hold the two together.

use super::file::File;
use super::values::Ordered;
use schemars::{JsonSchema as _, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// A text with a variable in it, as a regular expression for editors: what it comes to is known when the file is read.
const VARIABLE: &str = r"\$\{";

/// The JSON Schema of the types that `apps.yaml` is read into.
#[must_use]
pub fn shape() -> &'static Value {
    static SHAPE: LazyLock<Value> =
        LazyLock::new(|| schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>().to_value());
    &SHAPE
}

/// The JSON Schema of `apps.yaml`, as `offbuild schema` prints it.
///
/// Beyond the types, it lets every value of a mapping be left empty (`api:` alone is an app without settings), takes numbers and
/// booleans for the text they are written as, and a variable for a word, a number or a boolean.
#[must_use]
pub fn schema() -> Value {
    let mut schema = shape().clone();
    loosen(&mut schema);
    or_nothing(&mut schema);
    schema
}

/// Lets every value be written as reading takes it, here and everywhere inside.
fn loosen(schema: &mut Value) {
    let Some(words) = schema.as_object_mut() else { return };
    let variable = json!({ "type": "string", "pattern": VARIABLE });
    for (word, inside) in words.iter_mut() {
        match (word.as_str(), inside) {
            ("properties", Value::Object(values)) => values.values_mut().for_each(|value| {
                loosen(value);
                or_nothing(value);
            }),
            ("additionalProperties", value @ Value::Object(_)) => {
                loosen(value);
                or_nothing(value);
            }
            ("$defs", Value::Object(types)) => types.values_mut().for_each(|of| {
                loosen(of);
                if kinds(of.get("type")).eq(["object"]) {
                    or_nothing(of);
                }
            }),
            ("anyOf", Value::Array(choices)) => choices.iter_mut().for_each(loosen),
            ("items", value) => loosen(value),
            // One constant for each word that is known.
            ("oneOf", Value::Array(choices)) => choices.push(variable.clone()),
            _ => {}
        }
    }
    if let Some(only) = words.remove("const") {
        words.retain(|word, _| matches!(word.as_str(), "description" | "default"));
        words.insert("anyOf".to_owned(), json!([{ "const": only }, variable]));
        return;
    }
    let is = |kind: &str| kinds(words.get("type")).any(|known| known == kind);
    if is("string") && !words.contains_key("pattern") {
        add_kinds(words, &["number", "boolean"]);
    } else if is("boolean") || is("integer") && !is("string") {
        add_kinds(words, &["string"]);
        words.insert("pattern".to_owned(), VARIABLE.into());
    }
}

/// Lets a value be left empty. What a `$ref` leads to has its own say.
fn or_nothing(schema: &mut Value) {
    let Some(words) = schema.as_object_mut() else { return };
    if words.contains_key("type") {
        add_kinds(words, &["null"]);
        return;
    }
    let nothing = json!({ "type": "null" });
    if let Some(choices) = words.get_mut("anyOf").and_then(Value::as_array_mut).filter(|choices| !choices.contains(&nothing)) {
        choices.push(nothing);
    }
}

/// The types that a `type` names.
fn kinds(named: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, several) = (named.and_then(Value::as_str), named.and_then(Value::as_array));
    one.into_iter().chain(several.into_iter().flatten().filter_map(Value::as_str))
}

fn add_kinds(words: &mut Map<String, Value>, more: &[&str]) {
    let mut all: Vec<String> = kinds(words.get("type")).map(str::to_owned).collect();
    all.extend(more.iter().filter(|kind| !all.iter().any(|known| known == *kind)).map(|kind| (*kind).to_owned()).collect::<Vec<_>>());
    words.insert("type".to_owned(), all.into());
}

/// Demands a mapping in which a key has a value.
pub(super) fn is_given(key: &str) -> Value {
    json!({ "type": "object", "required": [key], "properties": { key: { "not": { "type": "null" } } } })
}

/// A number of builds in flight.
pub(super) fn jobs(_: &mut SchemaGenerator) -> Schema {
    let words = format!(r"^(auto|\+?0*[1-9]\d*%?)$|{VARIABLE}");
    json_schema!({ "type": ["integer", "string"], "minimum": 1, "maximum": u32::MAX, "pattern": words })
}

/// Groups of apps; one alone is none.
pub(super) fn groups(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Ordered::<Vec<String>>::json_schema(generator);
    if let Some(of) = schema.get_mut("additionalProperties").and_then(Value::as_object_mut) {
        of.insert("minItems".to_owned(), 2.into());
    }
    schema
}
