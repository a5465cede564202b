//! For tests: what of a value a JSON Schema refuses. Only the keywords that the schemas of this program use; any other is
//! refused itself, so that none is passed over.

use serde_json::Value;

/// What is wrong with `value`, each with its place; none when it is valid.
pub(crate) fn violations(root: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(root, root, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        if schema == &Value::Bool(false) {
            found.push(format!("{at}: nothing may be here"));
        }
        return;
    };
    let passes = |schema: &Value| {
        let mut inside = Vec::new();
        check(root, schema, value, at, &mut inside);
        inside.is_empty()
    };
    for (keyword, means) in keywords {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => {}
            "$ref" => {
                let target = means.as_str().and_then(|name| root.pointer(name.strip_prefix('#')?)).expect("a schema that is there");
                check(root, target, value, at, found);
            }
            "type" => {
                let names: Vec<&Value> = means.as_array().map_or_else(|| vec![means], |names| names.iter().collect());
                if !names.iter().any(|name| is(name.as_str().unwrap(), value)) {
                    found.push(format!("{at}: {value} is not {means}"));
                }
            }
            "const" if value != means => found.push(format!("{at}: {value} is not {means}")),
            "enum" if !means.as_array().unwrap().contains(value) => found.push(format!("{at}: {value} is none of {means}")),
            "const" | "enum" => {}
            "minimum" => {
                if value.as_f64().is_some_and(|number| number < means.as_f64().unwrap()) {
                    found.push(format!("{at}: {value} is below {means}"));
                }
            }
            "maximum" => {
                if value.as_f64().is_some_and(|number| number > means.as_f64().unwrap()) {
                    found.push(format!("{at}: {value} is above {means}"));
                }
            }
            "required" => {
                for name in means.as_array().unwrap().iter().filter_map(Value::as_str) {
                    if value.is_object() && value.get(name).is_none() {
                        found.push(format!("{at}: `{name}` is missing"));
                    }
                }
            }
            "properties" => {
                for (name, schema) in means.as_object().unwrap() {
                    if let Some(inside) = value.get(name) {
                        check(root, schema, inside, &format!("{at}/{name}"), found);
                    }
                }
            }
            "items" => {
                for (number, inside) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, means, inside, &format!("{at}/{number}"), found);
                }
            }
            "allOf" => means.as_array().unwrap().iter().for_each(|schema| check(root, schema, value, at, found)),
            "anyOf" if !means.as_array().unwrap().iter().any(passes) => found.push(format!("{at}: {value} is none of those allowed")),
            "oneOf" => {
                let count = means.as_array().unwrap().iter().filter(|schema| passes(schema)).count();
                if count != 1 {
                    found.push(format!("{at}: {value} is {count} of those allowed, not one"));
                }
            }
            "anyOf" => {}
            other => found.push(format!("{at}: the keyword `{other}` is not known here")),
        }
    }
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
