//! Reads a YAML tree against the JSON Schema of [`File`], so that every problem of shape is found in one pass and has a place.
//!
//! serde stops at the first problem and does not know where it stands. This walk names unknown keys, wrong types and unknown
//! words, leaves out what is wrong, fills in variables, and hands serde a value that fits: what is left can then be checked
//! for sense, too. It follows the subset of JSON Schema that schemars makes of our types.

use super::file::File;
use super::interpolate::interpolate;
use super::nearest::did_you_mean;
use super::schema::shape;
use crate::yaml::{Document, Node, Problem, Value as Yaml};
use serde_json::Value as Schema;
use serde_yaml::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What happens with `${VARIABLES}`.
#[derive(Clone, Copy)]
pub enum Variables<'a> {
    /// They are filled in.
    Fill(&'a dyn Fn(&str) -> Option<String>),
    /// They stay as written, so that a digest does not depend on the environment. Where something else than a string is
    /// wanted, the default counts; without one the value is left out.
    Keep,
}

/// What a file says, as far as it has the right shape.
pub struct Checked {
    /// The values.
    pub file: File,
    /// All that is wrong with its shape.
    pub problems: Vec<Problem>,
    /// Top-level keys whose value was left out: what refers to it cannot be checked.
    pub damaged: BTreeSet<String>,
}

/// Checks the shape of a file and reads it.
pub fn check(document: &Document, variables: Variables<'_>) -> Checked {
    let schema = shape();
    let mut walk = Walk { document, schema, variables, problems: document.problems.clone(), damaged: BTreeSet::new() };
    let value = walk.value(&document.root, schema, &mut Vec::new()).unwrap_or(Value::Mapping(serde_yaml::Mapping::new()));
    let file = match serde_yaml::from_value(value) {
        Ok(file) => file,
        // The walk lets nothing through that the types refuse; should it ever, that is a problem of the file's start.
        Err(error) => {
            walk.problem(0, error.to_string(), None);
            File::default()
        }
    };
    Checked { file, problems: walk.problems, damaged: walk.damaged }
}

struct Walk<'a> {
    document: &'a Document,
    schema: &'a Schema,
    variables: Variables<'a>,
    problems: Vec<Problem>,
    damaged: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    fn problem(&mut self, offset: usize, message: String, help: Option<String>) {
        self.problems.push(Problem { place: self.document.place(offset), message, help });
    }

    /// The value of a node as its schema wants it; `None` when it is empty or was left out.
    fn value(&mut self, node: &Arc<Node>, schema: &'a Schema, path: &mut Vec<String>) -> Option<Value> {
        let choices = self.choices(schema);
        let object = choices.iter().find(|choice| allows(choice, "object")).copied();
        let array = choices.iter().find(|choice| allows(choice, "array")).copied();
        if node.is_null() {
            // `api:` alone is an app without settings.
            return object.map(|_| Value::Mapping(serde_yaml::Mapping::new()));
        }
        let read = match (&node.value, object, array) {
            (Yaml::Mapping(_), Some(object), _) => return Some(self.mapping(node, object, path)),
            (Yaml::Sequence(items), _, Some(array)) => return Some(self.list(items, array, path)),
            (Yaml::Scalar { text, plain }, ..) => self.scalar(node, text, *plain, &choices, path),
            _ => Err(()),
        };
        match read {
            Ok(value) => value,
            Err(()) => {
                let expected: Vec<String> = choices.iter().map(|choice| expected(choice)).collect();
                let found = match node.as_str() {
                    Some(text) if text.len() < 40 && !text.contains('$') => format!("`{text}`"),
                    _ => node.kind().to_owned(),
                };
                let message = format!("expected {}, found {found}", expected.join(" or "));
                let help = match node.as_str() {
                    Some(text) if array.is_some() => Some(format!("write it as a list: `[{text}]`")),
                    Some("yes" | "on" | "Yes") if expected == ["`true` or `false`"] => Some("write `true`".to_owned()),
                    Some("no" | "off" | "No") if expected == ["`true` or `false`"] => Some("write `false`".to_owned()),
                    _ => None,
                };
                self.problem(node.span.start, message, help);
                if let [top] = path.as_slice() {
                    self.damaged.insert(top.clone());
                }
                // A rack or a set with a wrong value still exists.
                match (object, array) {
                    (Some(_), _) => Some(Value::Mapping(serde_yaml::Mapping::new())),
                    (_, Some(_)) => Some(Value::Sequence(Vec::new())),
                    _ => None,
                }
            }
        }
    }

    fn mapping(&mut self, node: &Node, schema: &'a Schema, path: &mut Vec<String>) -> Value {
        let properties = schema.get("properties").and_then(Schema::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let extensions = schema.get("patternProperties").is_some();
        let mut read = serde_yaml::Mapping::new();
        for entry in node.merged() {
            let known = properties.and_then(|properties| properties.get(&entry.key)).or(others);
            let Some(known) = known else {
                // Keys for the file's own use (`x-…`), for anchors above all: the one pattern the schema has.
                if !(extensions && entry.key.starts_with("x-")) {
                    let names: Vec<&str> = properties.into_iter().flat_map(|p| p.keys().map(String::as_str)).collect();
                    let help = did_you_mean(&entry.key, names.iter().copied())
                        .unwrap_or_else(|| format!("known here: {}", list(names.iter().copied(), ", ")));
                    let inside = path.last().map(|parent| format!(" in `{parent}`")).unwrap_or_default();
                    self.problem(entry.key_span.start, format!("unknown key `{}`{inside}", entry.key), Some(help));
                }
                continue;
            };
            path.push(entry.key.clone());
            if let Some(value) = self.value(&entry.value, known, path) {
                read.insert(Value::String(entry.key), value);
            }
            path.pop();
        }
        Value::Mapping(read)
    }

    fn list(&mut self, items: &[Arc<Node>], schema: &'a Schema, path: &mut Vec<String>) -> Value {
        let Some(of) = schema.get("items") else { return Value::Sequence(Vec::new()) };
        let mut read = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if item.is_null() {
                let message = format!("expected {}, found nothing", expected(of));
                self.problem(item.span.start, message, Some("fill it in, or take the `-` away".to_owned()));
            }
            path.push(index.to_string());
            // What is wrong keeps its index, so that the others keep their places; it is told already, and must not be told again
            // by whoever reads the values.
            let filler = || self.choices(of).into_iter().find_map(words).and_then(|words| words.first().copied()).unwrap_or_default();
            let filler = Value::String(filler().to_owned());
            read.push(self.value(item, of, path).unwrap_or(filler));
            path.pop();
        }
        Value::Sequence(read)
    }

    /// The scalar as one of the choices; `Err` when it is none of them, `Ok(None)` when it was left out.
    fn scalar(&mut self, node: &Node, text: &str, plain: bool, choices: &[&'a Schema], path: &[String]) -> Result<Option<Value>, ()> {
        let string = choices.iter().any(|choice| allows(choice, "string") && words(choice).is_none());
        let variable = text.contains("${");
        let later = match path {
            [racks, _, key] if racks == "racks" => key == "host" || key == "password",
            [notify, _, key] => notify == "notify" && key == "url",
            _ => false,
        };
        let text = match self.variables {
            _ if later => text.to_owned(),
            Variables::Keep if string => text.to_owned(),
            Variables::Keep => match interpolate(text, &|_| None) {
                Ok(text) => text,
                Err(_) => return Ok(None),
            },
            Variables::Fill(env) => match interpolate(text, env) {
                Ok(text) => text,
                Err(bad) => {
                    // Escapes and folding make text and source differ: look for the variable itself.
                    let end = text[bad.offset..].find('}').map_or(text.len(), |at| bad.offset + at + 1);
                    let written = &self.document.text[node.span.clone()];
                    let inside = written.find(&text[bad.offset..end]).unwrap_or(0);
                    self.problem(node.span.start + inside, bad.message, Some(bad.help));
                    return Ok(None);
                }
            },
        };
        if string {
            return Ok(Some(Value::String(text)));
        }
        for choice in choices {
            if let Some(words) = words(choice) {
                if words.contains(&text.as_str()) {
                    return Ok(Some(Value::String(text)));
                }
                let message = format!("`{text}` is none of {}", list(words.iter().copied(), ", "));
                self.problem(node.span.start, message, did_you_mean(&text, words.iter().copied()));
                return Ok(None);
            }
            if !plain && !variable {
                continue;
            }
            if allows(choice, "boolean") && matches!(text.as_str(), "true" | "True" | "TRUE" | "false" | "False" | "FALSE") {
                return Ok(Some(Value::Bool(text.eq_ignore_ascii_case("true"))));
            }
            if allows(choice, "integer")
                && let Ok(number) = text.parse::<u32>()
            {
                if let Some(only) = choice.get("const").and_then(Schema::as_u64).filter(|only| *only != u64::from(number)) {
                    self.problem(node.span.start, format!("`{number}` is not known here"), Some(format!("write `{only}`")));
                    return Ok(None);
                }
                let least = choice.get("minimum").and_then(Schema::as_u64).unwrap_or(0);
                if u64::from(number) < least {
                    self.problem(node.span.start, format!("`{number}` is too small"), Some(format!("it is {least} or more")));
                    return Ok(None);
                }
                return Ok(Some(Value::Number(number.into())));
            }
        }
        Err(())
    }

    /// What a schema allows besides nothing, references followed.
    fn choices(&self, schema: &'a Schema) -> Vec<&'a Schema> {
        if let Some(name) = schema.get("$ref").and_then(Schema::as_str) {
            let found = name.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer));
            return found.map(|found| self.choices(found)).unwrap_or_default();
        }
        match schema.get("anyOf").and_then(Schema::as_array) {
            Some(any) => any.iter().flat_map(|choice| self.choices(choice)).collect(),
            None if schema.get("type").and_then(Schema::as_str) == Some("null") => Vec::new(),
            None => vec![schema],
        }
    }
}

fn allows(schema: &Schema, kind: &str) -> bool {
    match schema.get("type") {
        Some(Schema::String(one)) => one == kind,
        Some(Schema::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    }
}

/// The words of an enumeration: schemars writes one `const` each when they have documentation, else an `enum`.
fn words(schema: &Schema) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Schema::as_array) {
        return Some(words.iter().filter_map(Schema::as_str).collect());
    }
    let one_of = schema.get("oneOf").and_then(Schema::as_array)?;
    Some(one_of.iter().filter_map(|one| one.get("const").and_then(Schema::as_str)).collect())
}

fn expected(schema: &Schema) -> String {
    if let Some(words) = words(schema) {
        return format!("one of {}", list(words.into_iter(), ", "));
    }
    let kinds = [
        ("string", "a string"),
        ("boolean", "`true` or `false`"),
        ("integer", "a whole number"),
        ("array", "a list"),
        ("object", "a mapping"),
    ];
    let names: Vec<&str> = kinds.iter().filter(|(kind, _)| allows(schema, kind)).map(|(_, name)| *name).collect();
    names.join(" or ")
}

/// Words in backticks.
fn list<'w>(words: impl Iterator<Item = &'w str>, between: &str) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(between)
}
