//! The schema that editors are given and the reading are of one mind: what one refuses the other refuses, but for what only reading
//! can know, and that is listed.

use super::*;
use crate::event::validating::Validator;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// What only reading refuses: part of its message, why a schema cannot say it, and a file.
const ONLY_READING: &[(&str, &str, &str)] = &[
    // Names that refer to each other.
    ("unknown rack `", "racks are named elsewhere in the file", "racks: {one: {}}\napps: {api: {racks: [two]}}\n"),
    ("comes after the unknown rack", "racks are named elsewhere in the file", "racks: {one: {after: [two]}}\n"),
    ("names the unknown rack", "racks are named elsewhere in the file", "notify: [{url: x, racks: [two]}]\n"),
    ("but does not go there", "racks are named elsewhere in the file", "racks: {one: {}}\napps: {api: {name: {two: x}}}\n"),
    ("` is here twice", "so are those that count", "racks: {one: {}}\napps: {api: {racks: [one, one]}}\n"),
    ("not say where to go", "an empty list is right, and none is not", "racks: {one: {}, two: {}}\n"),
    ("comes after the unknown app", "apps are directories", "apps: {api: {after: [gone]}}\n"),
    ("names the unknown app", "apps are directories", "groups: {g: [api, gone]}\n"),
    ("names app `", "apps are directories", "groups: {g: [api, api]}\n"),
    ("is in the groups", "apps are directories", "groups: {g: [api, web], h: [api, worker]}\n"),
    ("come after each other", "a cycle", "apps: {api: {after: [web]}, web: {after: [api]}}\n"),
    ("sets use each other", "a cycle", "shared: {s: {uses: [t]}, t: {uses: [s]}}\n"),
    ("is no set", "sets are named elsewhere in the file", "shared: {s: {uses: [gone]}}\n"),
    ("is neither a set nor a path that exists", "sets are named elsewhere in the file", "apps: {api: {uses: [gone]}}\n"),
    ("this says nothing without a `repository`", "one key wants another one", "registry: {insecure: true}\n"),
    ("are both called `", "names that collide", "racks: {one: {}}\napps: {api: {name: web}}\n"),
    // What is on the disk.
    ("two apps are called `", "directories are on the disk", "discover: {include: [apps/*, more/*]}\n"),
    ("` is the name of 2 directories", "directories are on the disk", "discover: {include: [apps/*, more/*]}\napps: {api: {}}\n"),
    ("` was found", "directories are on the disk", "apps: {gone: {}}\n"),
    ("` does not exist", "directories are on the disk", "apps: {gone: {path: apps/gone}}\n"),
    ("` has no manifest", "files are on the disk", "apps: {bare: {path: apps}}\n"),
    ("is the app `", "directories are on the disk", "apps: {api: {}, again: {path: apps/api}}\n"),
    ("` names does not exist", "files are on the disk", "apps: {api: {manifest: gone.yml}}\n"),
    ("cannot be used: ", "files are on the disk", "registry: {create: {lifecycle_policy: gone.json}}\n"),
    ("is a compose file itself", "the manifest's name tells what it is", "apps: {api: {manifest: compose.yml, compose: c.yml}}\n"),
    // Texts with a grammar of their own.
    ("leaves the repository", "paths have `..` anywhere", "global: [../x]\n"),
    ("leaves the directory of this file", "paths have `..` anywhere", "discover: {include: [../x]}\n"),
    ("a pattern is empty", "a variable may be empty, too", "global: ['']\n"),
    ("is no glob", "globs have a parser", "global: ['a[']\n"),
    ("takes a path away", "a `!` is right in some lists", "global: ['!x']\n"),
    ("is not an image repository", "references have a parser", "registry: {repository: NO}\n"),
    ("has an unknown placeholder", "references have a parser", "registry: {repository: 'h.example.com/{x}'}\n"),
    ("has a placeholder in its host", "references have a parser", "registry: {repository: '{app}.example.com/x'}\n"),
    ("is no registry's host", "names have rules of their own", "registries: {example.com/path: {}}\n"),
    ("is no name for a set", "names have rules of their own", "shared: {s/t: []}\n"),
    ("is no name for a group", "names have rules of their own", "groups: {g/h: [api, web]}\n"),
    ("is not an app name", "names have rules of their own", "racks: {one: {}}\napps: {api: {name: _}}\n"),
    ("is not a rack name", "names have rules of their own", "racks: {' ': {}}\n"),
    ("has no program", "a list without its first word", "apps: {api: {hooks: {on_failure: ['']}}}\n"),
    ("`99999999999999999999h` is no length of time", "its number is too large", "defaults: {timeouts: {build: 99999999999999999999h}}\n"),
    ("`4294967296%` is no number of jobs", "its number is too large", "jobs: 4294967296%\n"),
    // What a variable comes to.
    ("is not set", "variables are the environment's", "ignore: ['${GONE}']\n"),
    ("names no variable", "what is no variable at all", "ignore: ['${}']\n"),
    ("`${` has no `}`", "what is no variable at all", "ignore: ['${x']\n"),
    ("`7` is no length of time", "what a variable comes to", "defaults: {timeouts: {build: '${GONE:-7}'}}\n"),
    ("`7` is no platform", "what a variable comes to", "defaults: {build: {platform: '${GONE:-7}'}}\n"),
    ("`7` is none of", "what a variable comes to", "unowned: ${GONE:-7}\n"),
    ("expected `true` or `false` or a mapping, found a string", "what a variable comes to", "registry: {create: '${GONE:-7}'}\n"),
    ("expected `true` or `false`, found a string", "what a variable comes to", "defaults: {hold: '${GONE:-7}'}\n"),
    ("expected a whole number, found a string", "what a variable comes to", "defaults: {build: {weight: '${GONE:-x}'}}\n"),
    ("`7` is not known here", "what a variable comes to", "version: ${GONE:-7}\n"),
    ("`0` is too small", "what a variable comes to", "defaults: {build: {weight: '${GONE:-0}'}}\n"),
];

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| Validator::new(schema()));

/// What the schema says of a file that another YAML reader has read; the error is that reader's.
fn refused(text: &str) -> Result<Option<String>, serde_yaml::Error> {
    let mut yaml: serde_yaml::Value = serde_yaml::from_str(text)?;
    yaml.apply_merge()?;
    Ok(SCHEMA.refuses(&serde_json::to_value(yaml).unwrap()))
}

/// Holds the schema against what reading made of a file.
pub(super) fn compare(text: &str, read: &crate::error::Result<Config>) {
    match (read, refused(text)) {
        (Ok(_), Ok(None)) | (Err(_), Ok(Some(_)) | Err(_)) => {}
        (Ok(_), Ok(Some(why))) => panic!("the schema refuses what is read:\n{text}\n{why}"),
        (Ok(_), Err(why)) => panic!("this is read, and is no YAML: {why}\n{text}"),
        (Err(error), Ok(None)) => {
            let message = error.to_string();
            let problems = message.split("\n\n").filter(|problem| !problem.contains(" in the configuration `"));
            for problem in problems.map(|problem| problem.lines().next().unwrap_or_default()) {
                let listed = ONLY_READING.iter().any(|(says, ..)| problem.contains(says));
                assert!(listed, "the schema takes what is refused:\n{problem}\n{text}");
            }
        }
    }
}

#[test]
fn what_only_reading_refuses_is_listed_with_its_reason() {
    for (says, why, text) in ONLY_READING {
        assert_eq!(refused(text).unwrap(), None, "{why}: the schema can say it, too:\n{text}");
        let repository = Repository::with(text);
        repository.write("more/api/convox.yml", "");
        let message = repository.error();
        assert!(message.contains(says), "`{says}` is not in: {message}");
    }
}

/// The YAML blocks of the documentation that are for `apps.yaml`: whole files, and parts of one.
fn documented() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md")).chain([root.join("README.md")]);
    let mut blocks = Vec::new();
    for page in pages.map(|path| std::fs::read_to_string(path).unwrap()) {
        for block in page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            // A block in a list is indented like the list.
            let indent = block.len() - block.trim_start_matches(' ').len();
            let block: String = block.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
            if ["version: 1\n", "notify:", "racks:", "defaults:", "apps:"].iter().any(|begin| block.starts_with(begin)) {
                blocks.push(block);
            }
        }
    }
    blocks
}

#[test]
fn every_example_is_valid_for_both() {
    let whole: Value = serde_yaml::from_str(EXAMPLE).unwrap();
    let blocks = documented();
    assert!(blocks.len() >= 2, "{blocks:?}");
    // Reading asks the schema, too.
    for block in blocks {
        let read = if block.starts_with("version: 1\n") {
            Repository::with(&block).load(&[])
        } else {
            // A part is read in the place it has in the example.
            let part: Value = serde_yaml::from_str(&block).unwrap();
            let mut file = whole.clone();
            file.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            let repository = example();
            repository.write("apps.yaml", &file.to_string());
            repository.load(&[])
        };
        read.unwrap_or_else(|error| panic!("{block}\n{error}"));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = load(&root.join("example"), root, None, &|_| None);
    compare(include_str!("../../../example/apps.yaml"), &read);
    assert!(read.is_ok(), "{read:?}");
}

/// Every file that is one wrong word away from `file`: keys dropped and renamed, values of other kinds, numbers out of range.
fn mutations(file: &Value) -> Vec<Value> {
    fn places(value: &Value, place: &str, found: &mut Vec<String>) {
        found.push(place.to_owned());
        let below = |key: &str| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &below(key), found)),
            Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| places(value, &below(&index.to_string()), found)),
            _ => {}
        }
    }
    let (mut all, mut found) = (Vec::new(), Vec::new());
    places(file, "", &mut all);
    let others = json!([
        null, true, 0, 4294967296u64, "a word", "0s", "${NO:-7}", [null], ["a"], {"a": null}, {"a": ["a"]}
    ]);
    for place in all {
        let mut with = |change: &dyn Fn(&mut Value)| {
            let mut mutated = file.clone();
            change(mutated.pointer_mut(&place).unwrap());
            found.push(mutated);
        };
        for other in others.as_array().unwrap() {
            with(&|value| *value = other.clone());
        }
        let keys: Vec<String> = file.pointer(&place).and_then(Value::as_object).into_iter().flat_map(|map| map.keys().cloned()).collect();
        for key in keys {
            with(&|value| drop(value.as_object_mut().unwrap().shift_remove(&key)));
            with(&|value| {
                let map = value.as_object_mut().unwrap();
                let kept = map.shift_remove(&key).unwrap();
                map.insert(format!("{key}x"), kept);
            });
        }
        with(&|value| {
            if let Some(list) = value.as_array_mut() {
                let again = list.clone();
                list.extend(again);
            }
        });
    }
    found
}

#[test]
fn whatever_is_wrong_is_wrong_for_both() {
    // All that the example explains and does not use.
    let mut whole: Value = serde_yaml::from_str(EXAMPLE).unwrap();
    whole["registry"]["create"]["lifecycle_policy"] = "policy.json".into();
    whole["defaults"]["hooks"] = json!({"on_failure": ["bin/notify", "failed"]});
    whole["defaults"]["repository"] = "r.example.com/{app}".into();
    let files = [vec![whole.clone()], mutations(&whole)].concat();
    let reads = files.par_chunks(100).map(|files| {
        let repository = example();
        repository.write("policy.json", "{}");
        let read = |file: &&Value| {
            repository.write("apps.yaml", &file.to_string());
            repository.load(&[]).is_ok()
        };
        files.iter().filter(read).count()
    });
    let taken: usize = reads.sum();
    assert!(taken > 100 && files.len() - taken > 1000, "{taken} of {} are taken", files.len());
}
