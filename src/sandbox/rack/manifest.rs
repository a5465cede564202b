//! What a rack reads of a manifest: its services, where their images come from, and the variables it needs.

use crate::yaml::{Document, Node};
use std::collections::BTreeMap;

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    /// What its `image:` says, interpolated. It wins over a `build:`.
    pub(super) image: Option<String>,
    /// The Dockerfile its build would read, relative to the manifest.
    pub(super) dockerfile: String,
    /// The first port it listens on.
    pub(super) port: Option<u16>,
}

/// Variables by name.
pub(super) type Env = BTreeMap<String, String>;

/// An env as a release stores it: lines, no quoting; lines without `=` do not count.
pub(super) fn parse_env(text: &str) -> Env {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.to_owned())).collect()
}

/// Reads a manifest against an env, which must have every variable that is declared without a value. The error is the
/// rack's text.
pub(super) fn read(text: &str, generation: u8, env: &Env) -> Result<Vec<Service>, String> {
    parse(text, generation, env, true)
}

/// Reads a manifest without any env, as copying from a registry does: `${X}` gives nothing, and nothing is required.
pub(super) fn read_without_env(text: &str, generation: u8) -> Result<Vec<Service>, String> {
    parse(text, generation, &Env::new(), false)
}

fn parse(text: &str, generation: u8, env: &Env, strict: bool) -> Result<Vec<Service>, String> {
    let require = |node: &Node| if strict { require(node, env) } else { Ok(()) };
    let text = interpolate(text, env);
    let document =
        Document::parse("manifest", &text).map_err(|problem| format!("yaml: line {}: {}", problem.place.line, problem.message))?;
    if let Some(problem) = document.problems.first() {
        return Err(format!("yaml: line {}: {}", problem.place.line, problem.message));
    }
    let root = &document.root;
    // The first compose format has the services at the top.
    let services = match root.get("services") {
        Some(services) => services.merged(),
        None if generation == 1 => root.merged(),
        None => Vec::new(),
    };
    require(root)?;
    let mut read = Vec::new();
    for entry in services {
        require(&entry.value)?;
        let scalar = |key: &str| entry.value.get(key).and_then(|node| node.as_str().map(str::to_owned));
        read.push(Service {
            name: entry.key.clone(),
            image: scalar("image").filter(|image| !image.is_empty()),
            dockerfile: dockerfile(&entry.value),
            port: scalar("port").and_then(|port| port.rsplit(':').next()?.parse().ok()),
        });
    }
    Ok(read)
}

/// Checks that every variable declared without a value has one.
fn require(node: &Node, env: &Env) -> Result<(), String> {
    let Some(environment) = node.get("environment") else { return Ok(()) };
    for item in environment.items().unwrap_or_default() {
        if let Some(name) = item.as_str().filter(|name| !name.contains('=') && *name != "*" && !env.contains_key(*name)) {
            return Err(format!("required env: {name}"));
        }
    }
    Ok(())
}

fn dockerfile(service: &Node) -> String {
    let build = service.get("build");
    let text = |node: Option<&Node>| node.and_then(Node::as_str).map(str::to_owned);
    let (context, file) = match build.as_deref() {
        Some(node) if node.entries().is_some() => (
            text(node.get("context").or_else(|| node.get("path")).as_deref()),
            text(node.get("dockerfile").or_else(|| node.get("manifest")).as_deref()),
        ),
        node => (text(node), None),
    };
    let file = file.or_else(|| text(service.get("dockerfile").as_deref())).unwrap_or_else(|| "Dockerfile".to_owned());
    let context = context.unwrap_or_default();
    let context = context.trim_start_matches("./").trim_matches('/');
    if context.is_empty() || context == "." { file } else { format!("{context}/{file}") }
}

/// Replaces `${NAME}`; a name nobody set gives nothing.
fn interpolate(text: &str, env: &Env) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${")
        && let Some(length) = rest[at..].find('}')
    {
        out.push_str(&rest[..at]);
        out.push_str(env.get(&rest[at + 2..at + length]).map_or("", String::as_str));
        rest = &rest[at + length + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_from_every_kind_of_manifest() {
        let names = |text: &str, generation| {
            let services = read(text, generation, &Env::new()).unwrap();
            services.into_iter().map(|s| (s.name, s.image, s.dockerfile)).collect::<Vec<_>>()
        };
        let service = |name: &str, image: Option<&str>, file: &str| (name.to_owned(), image.map(str::to_owned), file.to_owned());
        assert_eq!(
            names("services:\n  web:\n    build: .\n    image: a/b:c\n  job:\n    build: {path: ./jobs, manifest: D}\n", 2),
            [service("web", Some("a/b:c"), "Dockerfile"), service("job", None, "jobs/D")]
        );
        assert_eq!(names("web:\n  image: x\n", 1), [service("web", Some("x"), "Dockerfile")]);
        assert_eq!(names("resources: {}\n", 2), []);
    }

    #[test]
    fn a_variable_without_a_value_is_required() {
        let text = "environment:\n  - A=1\nservices:\n  web:\n    image: r/${IMAGE}:x\n    environment: [SECRET, B=2, '*']\n";
        assert_eq!(read(text, 2, &Env::new()).unwrap_err(), "required env: SECRET");
        let env = parse_env("SECRET=x=y\nIMAGE=web\nnonsense\n");
        assert_eq!(env["SECRET"], "x=y");
        assert_eq!(read(text, 2, &env).unwrap()[0].image.as_deref(), Some("r/web:x"));
    }

    #[test]
    fn an_invalid_manifest_is_told_with_its_line() {
        assert!(read("services:\n  web: {\n", 2, &Env::new()).unwrap_err().starts_with("yaml: line "));
    }
}
