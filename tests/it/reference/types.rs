//! Exit codes, events and failure classes, from the types and what is written at them.

use super::{heading, row, sources};
use offbuild::event::{FORMAT_VERSION, FailureClass};

/// A variant of an enum as its source has it.
struct Variant {
    name: String,
    about: String,
    fields: Vec<Field>,
}

struct Field {
    name: String,
    kind: String,
    about: String,
    /// Its own fields stand in its place.
    flat: bool,
}

pub fn write(text: &mut String) {
    exit_codes(text);
    events(text);
    text.push_str(
        "\n## Failure classes\n\nThe `class` of a step or target that failed, with the hint that is given when nobody knows better.\n",
    );
    text.push_str("The last column: may the same commit go through at the next try, or has something to be changed first?\n\n");
    heading(text, &["class", "meaning", "hint", "again?"]);
    for variant in variants("event/class.rs", "FailureClass") {
        let name = kebab(&variant.name);
        let class: FailureClass = serde_json::from_value(name.clone().into()).unwrap();
        assert_eq!(class.name(), name, "an event spells it differently");
        let again = if class.may_pass() { "may pass" } else { "change it" };
        row(text, &[&format!("`{name}`"), &variant.about, class.hint(), again]);
    }
}

fn exit_codes(text: &mut String) {
    text.push_str("\n## Exit codes\n\n");
    heading(text, &["code", "kind", "meaning"]);
    row(text, &["0", "", "Done, or nothing to do."]);
    for variant in variants("error.rs", "Kind") {
        let name = kebab(&variant.name);
        let kind: offbuild::error::Kind = serde_json::from_value(name.clone().into()).unwrap();
        row(text, &[&kind.exit_code().to_string(), &format!("`{name}`"), &variant.about]);
    }
    text.push_str("\n`changed --exit-code`: 0 none changed, 1 some, 2 error. `lint`: 1 when it found an error. `doctor`: 1 when something is wrong.\n");
}

fn events(text: &mut String) {
    text.push_str(&format!("\n## Events\n\nOne JSON object a line, in journals and `--events`: `seq` (counts up from 0), `time` (RFC 3339, UTC), `event`,\nand the fields below. The version of the format is {FORMAT_VERSION}. A field that may be absent is marked `?`. A step is\n`{{app, rack?, service?, stage}}`; a target is `{{app, rack}}`.\n"));
    for variant in variants("event/mod.rs", "EventKind") {
        text.push_str(&format!("\n### {}\n\n{}\n", kebab(&variant.name), variant.about));
        fields(text, &variant.fields);
    }
    for (file, name, title) in [
        ("event/mod.rs", "StepOutcome", "How a step ends"),
        ("event/mod.rs", "TargetOutcome", "How a target ends"),
        ("event/step.rs", "Stage", "Stages"),
    ] {
        text.push_str(&format!("\n### {title}\n\n"));
        let tagged = if name == "Stage" { "stage" } else { "outcome" };
        heading(text, &[tagged, "meaning", "fields"]);
        for variant in variants(file, name) {
            let field = |field: &Field| format!("`{}` ({}): {}", field.name, field.kind, field.about.trim_end_matches('.'));
            let fields: Vec<String> = variant.fields.iter().map(field).collect();
            row(text, &[&format!("`{}`", kebab(&variant.name)), &variant.about, &fields.join("; ")]);
        }
    }
}

fn fields(text: &mut String, fields: &[Field]) {
    if fields.is_empty() {
        return;
    }
    text.push('\n');
    heading(text, &["field", "type", "what"]);
    for field in fields {
        if field.flat {
            let see =
                if field.kind == "StepOutcome" { "[How a step ends](#how-a-step-ends)" } else { "[How a target ends](#how-a-target-ends)" };
            row(text, &["`outcome`, …", "text", &format!("{} {see}.", field.about)]);
        } else {
            row(text, &[&format!("`{}`", field.name), &field.kind, &field.about]);
        }
    }
}

/// `StepStarted` as events spell it.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The variants of a public enum, read from its source as `rustfmt` lays it out.
fn variants(file: &str, name: &str) -> Vec<Variant> {
    let sources = sources();
    let (_, source) = sources.iter().find(|(path, _)| path == file).unwrap_or_else(|| panic!("`{file}` is gone"));
    let (_, rest) = source.split_once(&format!("pub enum {name} {{\n")).unwrap_or_else(|| panic!("`{name}` is not in `{file}`"));
    let body = rest.split("\n}").next().unwrap();
    let (mut found, mut about, mut flat): (Vec<Variant>, Vec<String>, bool) = (Vec::new(), Vec::new(), false);
    for line in body.lines() {
        let (indent, line) = (line.len() - line.trim_start().len(), line.trim());
        if let Some(doc) = line.strip_prefix("///") {
            about.push(doc.trim().replace("[`", "`").replace("`]", "`"));
        } else if line.starts_with("#[") {
            flat |= line.contains("flatten");
        } else if indent == 4 && line.starts_with(|c: char| c.is_uppercase()) {
            let name = line.chars().take_while(|c| c.is_alphanumeric()).collect();
            found.push(Variant { name, about: std::mem::take(&mut about).join(" "), fields: Vec::new() });
        } else if let Some((name, kind)) = line.split_once(": ").filter(|_| indent == 8) {
            let about = std::mem::take(&mut about).join(" ");
            let kind = if flat { kind.trim_end_matches(',').to_owned() } else { words(kind.trim_end_matches(',')) };
            found.last_mut().unwrap().fields.push(Field { name: name.to_owned(), kind, about, flat });
            flat = false;
        }
    }
    assert!(!found.is_empty() && found.iter().all(|variant| !variant.about.is_empty()), "`{name}` is not documented");
    found
}

/// A field's type as JSON has it.
fn words(kind: &str) -> String {
    let inner = |outer: &str| kind.strip_prefix(outer).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inner("Option<") {
        return format!("{}?", words(inner));
    }
    if let Some(inner) = inner("Vec<") {
        return format!("list of {}", words(inner));
    }
    match kind {
        "u8" | "u32" | "u64" | "usize" => "number".to_owned(),
        "bool" => "true or false".to_owned(),
        "Step" => "step".to_owned(),
        "Target" => "target".to_owned(),
        "Stage" => "stage".to_owned(),
        "FailureClass" => "[class](#failure-classes)".to_owned(),
        "Output" => "`out` or `err`".to_owned(),
        "Box<Evidence>" => "object".to_owned(),
        "String" | "AppName" | "BuildId" | "CommitId" | "Digest" | "Fingerprint" | "ReleaseId" | "RunId" | "ServiceName" => {
            "text".to_owned()
        }
        other => panic!("a type nobody told this test of: {other}"),
    }
}
