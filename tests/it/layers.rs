//! The order of the modules, held: who may name whom, that each opens with what it is for, and that a file can be read in one
//! sitting. `ARCHITECTURE.md` tells the same in prose.
//!
//! The sources are read as text: comments, strings and what is there for tests are taken out, then every path that begins with
//! `crate`, `super` or a child module is resolved to the module it leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The modules that touch the outside for a port. Only `run` names them; among themselves, those of one port may.
const ADAPTERS: &[&str] = &[
    "build::docker",
    "changes::git",
    "changes::gitcli",
    "changes::tree",
    "changes::worktree",
    "hooks::process",
    "rack::convox",
    "rack::login",
    "registry::auth",
    "registry::aws",
    "registry::credentials",
    "registry::ecr",
    "registry::http",
    "registry::oci",
    "registry::registries",
    "registry::shared",
];

/// Ports that pick among their own adapters: the history, by the kind of the repository.
const OPENS: &[(&str, &str)] = &[("changes", "changes::git"), ("changes", "changes::gitcli")];

/// What each module may name outside of itself, lowest first. The most particular row that fits a module counts.
const TABLE: &[(&str, &[&str])] = &[
    // Words.
    ("names", &[]),
    ("words", &[]),
    ("secret", &["words"]),
    ("error", &[]),
    ("yaml", &[]),
    ("retry", &[]),
    ("event", &["names", "secret", "words"]),
    // The repository's files: on disk, or (`changes::committed`) a commit's.
    ("files", &["names"]),
    // What the ports say, in words of their own; `mod.rs` is all that others see of them.
    ("build", &["names", "secret", "event", "registry"]),
    ("hooks", &["secret", "event"]),
    ("rack", &["names", "secret", "event", "registry"]),
    ("registry", &["names", "secret", "retry"]),
    // Known facts: read, checked, compared; pure where nothing else is said.
    ("discovery", &["names", "files"]),
    ("config", &["names", "secret", "error", "yaml", "event", "files", "discovery", "build", "rack", "registry"]),
    ("manifest", &["names", "error", "yaml", "config", "build"]),
    ("changes", &["names", "error", "yaml", "files", "config", "manifest", "rack", "build::dockerignore"]),
    ("plan", &["names", "error", "event", "config", "manifest", "changes", "build", "rack", "registry"]),
    // Doing: the plan through the ports. No adapter, no file, no command line.
    ("deploy", &["names", "secret", "yaml", "event", "config", "changes", "plan", "build", "hooks", "rack", "registry"]),
    // Telling: events, and where they are kept.
    ("journal", &["names", "error", "event"]),
    ("lock", &["names", "error", "words", "journal", "rack"]),
    ("report", &["names", "error", "words", "event", "journal"]),
    // Adapters: their port, words, and the settings they are made from.
    ("build::docker", &["names", "secret", "retry", "event", "build", "build::dockerignore", "registry"]),
    ("hooks::process", &["secret", "event", "hooks"]),
    ("rack::convox", &["names", "secret", "retry", "event", "yaml", "config", "rack", "rack::login", "registry"]),
    ("rack::login", &["error", "secret", "config", "rack"]),
    ("registry::registries", &["names", "secret", "config", "registry"]),
    // The other side of the wire; the product does not know it.
    ("sandbox", &["names", "secret", "error", "yaml", "registry"]),
    ("cli", &["plan"]),
];

/// Lines of a file without its tests. Longer ones are split, by step or by what comes out.
const LINES: usize = 500;

#[test]
fn modules_name_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for (module, source) in sources() {
        // The library's list and the composition root know everything.
        if module == "crate" || module == "main" || within(&module, "run") {
            continue;
        }
        let row = TABLE.iter().filter(|(row, _)| within(&module, row)).max_by_key(|(row, _)| row.len());
        let Some((row, allowed)) = row else {
            wrong.push(format!("`{module}` is in no row of the table"));
            continue;
        };
        for to in &source.names {
            let adapter = ADAPTERS.iter().find(|adapter| within(to, adapter));
            let fine = match adapter {
                // A port's own files, but not the port itself: it does not know who serves it.
                Some(adapter) => {
                    let port = adapter.split("::").next().unwrap_or_default();
                    let same_port = within(&module, port)
                        && (ADAPTERS.iter().any(|other| within(&module, other)) || OPENS.contains(&(module.as_str(), to.as_str())));
                    same_port || allowed.contains(adapter)
                }
                None => within(to, row) || allowed.iter().any(|allowed| within(to, allowed)),
            };
            if !fine {
                wrong.push(format!("`{module}` names `{to}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "not as the table says: {wrong:#?}");
}

#[test]
fn every_module_opens_with_what_it_is_for() {
    for (module, source) in sources() {
        assert!(source.text.starts_with("//! "), "`{module}` does not open with a `//!` line");
    }
}

#[test]
fn nothing_is_printed_past_the_redactor() {
    let prints = |source: &Source| {
        let product = without_tests(&code(&source.text));
        ["print!(", "println!(", "dbg!("].iter().any(|call| product.contains(call))
    };
    let found: Vec<String> = sources().into_iter().filter(|(_, source)| prints(source)).map(|(module, _)| module).collect();
    assert!(found.is_empty(), "use `run::tell`: {found:?}");
}

#[test]
fn every_file_can_be_read_in_one_sitting() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(_, source)| source.lines > LINES)
        .map(|(module, source)| format!("{module}: {} lines", source.lines))
        .collect();
    assert!(long.is_empty(), "more than {LINES} lines without tests: {long:#?}");
}

/// A file of `src`.
struct Source {
    text: String,
    /// Its lines without tests.
    lines: usize,
    /// The modules it names, itself left out.
    names: BTreeSet<String>,
}

/// The product's modules by their path, `rack::convox::http`; `lib.rs` is `crate`.
fn sources() -> BTreeMap<String, Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    collect(&root, &root, &mut files);
    let test_only: BTreeSet<String> = files.iter().flat_map(|(module, text)| test_modules(module, text)).collect();
    files.retain(|module, _| !test_only.iter().any(|test| within(module, test)));
    let modules: BTreeSet<String> = files.keys().cloned().collect();
    files
        .into_iter()
        .map(|(module, text)| {
            let product = without_tests(&code(&text));
            let names = paths(&module, &product, &modules);
            let lines = product.lines().count();
            (module, Source { text, lines, names })
        })
        .collect()
}

fn collect(dir: &Path, root: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, root, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).unwrap().with_extension("");
            let mut words: Vec<&str> = relative.iter().map(|word| word.to_str().unwrap()).collect();
            if words.last() == Some(&"mod") {
                words.pop();
            }
            let module = if words == ["lib"] { "crate".to_owned() } else { words.join("::") };
            files.insert(module, std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn within(module: &str, of: &str) -> bool {
    module == of || module.strip_prefix(of).is_some_and(|rest| rest.starts_with("::"))
}

/// The text with comments and the insides of strings blanked, every line where it was.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let blank = |out: &mut String, part: &str| out.extend(part.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    while let Some(c) = rest.chars().next() {
        let raw = raw_string(rest);
        let ahead = rest.as_bytes().get(1).copied();
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(end) = raw {
            end
        } else if c == '"' {
            let mut escaped = false;
            1 + rest[1..]
                .find(|c| match (escaped, c) {
                    (true, _) => {
                        escaped = false;
                        false
                    }
                    (false, '\\') => {
                        escaped = true;
                        false
                    }
                    (false, c) => c == '"',
                })
                .map_or(rest.len() - 1, |end| end + 1)
        } else if c == '\'' && ahead == Some(b'\\') {
            3 + rest[3..].find('\'').map_or(0, |end| end + 1)
        } else if c == '\'' && rest.chars().nth(2) == Some('\'') {
            rest.char_indices().nth(3).map_or(rest.len(), |(at, _)| at)
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        blank(&mut out, &rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

/// The length of a raw string that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    let inside = hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let start = text.len() - inside.len();
    inside.find(&end).map(|at| start + at + end.len())
}

const FOR_TESTS: &str = "#[cfg(test)]";

/// The code without the items behind `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(FOR_TESTS) {
        out.push_str(&rest[..at]);
        rest = &rest[at + FOR_TESTS.len()..];
        let mut depth = 0;
        let end = rest.char_indices().find(|(_, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(c, ';' | '}')
        });
        rest = end.map_or("", |(at, c)| &rest[at + c.len_utf8()..]);
    }
    out.push_str(rest);
    out
}

/// The modules that a file declares only for tests, each in a file of its own.
fn test_modules(module: &str, text: &str) -> Vec<String> {
    code(text)
        .split(FOR_TESTS)
        .skip(1)
        .filter_map(|rest| {
            let item = rest[..rest.find([';', '{'])?].trim();
            let (_, name) = item.rsplit_once("mod ")?;
            let parent = if module == "crate" { String::new() } else { format!("{module}::") };
            Some(format!("{parent}{}", name.trim()))
        })
        .collect()
}

/// The modules that the code's paths lead to.
fn paths(module: &str, code: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let tokens = tokens(code);
    let here: Vec<&str> = if module == "crate" { Vec::new() } else { module.split("::").collect() };
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        if at > 0 && tokens[at - 1] == "::" || tokens.get(at + 1) != Some(&"::") {
            continue;
        }
        let start: Vec<&str> = match *token {
            "crate" => Vec::new(),
            "self" => here.clone(),
            "super" => here[..here.len().saturating_sub(1)].to_vec(),
            child if modules.contains(&here.iter().copied().chain([child]).collect::<Vec<_>>().join("::")) => {
                here.iter().copied().chain([child]).collect()
            }
            _ => continue,
        };
        follow(&tokens, at + 1, &start, &mut found);
    }
    let module_of =
        |path: &[String]| (1..=path.len()).rev().map(|length| path[..length].join("::")).find(|prefix| modules.contains(prefix));
    let mut names: BTreeSet<String> = found.iter().filter_map(|path| module_of(path)).collect();
    names.remove(module);
    names
}

/// Follows a path from a `::` on, into its groups.
fn follow(tokens: &[&str], at: usize, so_far: &[&str], found: &mut BTreeSet<Vec<String>>) -> usize {
    let end = |found: &mut BTreeSet<Vec<String>>| found.insert(so_far.iter().map(|word| (*word).to_owned()).collect());
    if tokens.get(at) != Some(&"::") {
        end(found);
        return at;
    }
    match tokens.get(at + 1) {
        Some(&"{") => {
            let mut at = at + 2;
            while let Some(token) = tokens.get(at) {
                match *token {
                    "}" => return at + 1,
                    "," => at += 1,
                    "self" => {
                        end(found);
                        at += 1;
                    }
                    word => {
                        let path: Vec<&str> = so_far.iter().copied().chain([word]).collect();
                        at = follow(tokens, at + 1, &path, found);
                    }
                }
                // A new name: `path as name`.
                if tokens.get(at) == Some(&"as") {
                    at += 2;
                }
            }
            at
        }
        Some(&"super") => follow(tokens, at + 2, &so_far[..so_far.len().saturating_sub(1)], found),
        Some(word) if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
            let path: Vec<&str> = so_far.iter().copied().chain([*word]).collect();
            follow(tokens, at + 2, &path, found)
        }
        _ => {
            end(found);
            at + 1
        }
    }
}

fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let length = if c.is_alphanumeric() || c == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if !c.is_whitespace() {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    tokens
}
