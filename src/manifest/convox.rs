//! `convox.yml`: the services of generation 2.
//!
//! The keys are those of the rack's own manifest (`ServiceBuild` in convox/convox `pkg/manifest/service.go`: `path`, `manifest`,
//! `args`), and so is the rule that a service that says neither `build` nor `image` is built from the manifest's directory.

use super::source::Source;
use super::{Service, ServiceBuild};
use crate::names::ServiceName;
use crate::yaml::{Entry, Node};

const BUILD_KEYS: [&str; 3] = ["args", "manifest", "path"];

/// The services of the file, in its order.
pub(super) fn services(source: &mut Source<'_>) -> Vec<Service> {
    let root = std::sync::Arc::clone(&source.document.root);
    if root.entries().is_none() {
        let help = Some("it starts with `services:`".to_owned());
        source.problem(root.span.start, format!("a manifest is a mapping, not {}", root.kind()), help);
        return Vec::new();
    }
    entries(source, &root).iter().filter_map(|entry| service(source, entry)).collect()
}

/// The entries of `services`, reported when there are none.
pub(super) fn entries(source: &mut Source<'_>, root: &Node) -> Vec<Entry> {
    let Some(services) = root.entry("services") else {
        source.problem(root.span.start, "there is no `services`, so nothing to deploy", None);
        return Vec::new();
    };
    let at = services.key_span.start;
    match services.value.entries() {
        Some([]) => source.problem(at, "`services` is empty, so there is nothing to deploy", None),
        Some(_) => return services.value.merged(),
        None => source.problem(at, format!("`services` must be a mapping, not {}", services.value.kind()), None),
    }
    Vec::new()
}

/// The service's name, reported when it cannot be one.
pub(super) fn name(source: &mut Source<'_>, entry: &Entry) -> Option<ServiceName> {
    ServiceName::new(entry.key.as_str()).map_err(|error| source.problem(entry.key_span.start, error.to_string(), None)).ok()
}

fn service(source: &mut Source<'_>, entry: &Entry) -> Option<Service> {
    let at = entry.key_span.start;
    let name = name(source, entry)?;
    if entry.value.entries().is_none() && !entry.value.is_null() {
        source.problem(at, format!("service `{name}` must be a mapping, not {}", entry.value.kind()), None);
        return None;
    }
    let build = entry.value.entry("build").filter(|build| !build.value.is_null());
    let image = entry.value.entry("image").filter(|image| !image.value.is_null());
    if let (Some(_), Some(beside)) = (&build, entry.value.entry("manifest")) {
        let help = "write `build: {path: …, manifest: …}`".to_owned();
        source.warn(beside.key_span.start, "`manifest` beside `build` is read by nobody", Some(help));
    }
    let built = build.is_some() || image.is_none();
    let image = image.and_then(|image| source.image(&image, built));
    let place = source.document.place(at);
    let build = built.then(|| self::build(source, build.as_ref(), at));
    Some(Service { name, place, image, build })
}

/// A build; without an entry it is the rack's default, the manifest's directory.
fn build(source: &mut Source<'_>, entry: Option<&Entry>, service: usize) -> ServiceBuild {
    let at = entry.map_or(service, |entry| entry.key_span.start);
    let mut path = (".".to_owned(), at);
    let mut dockerfile = ("Dockerfile".to_owned(), at);
    let mut args = std::collections::BTreeMap::new();
    match entry {
        Some(entry) if entry.value.entries().is_some() => {
            for key in entry.value.merged() {
                match key.key.as_str() {
                    "path" => path = source.word_or(Some(&key), ".", at),
                    "manifest" => dockerfile = source.word_or(Some(&key), "Dockerfile", at),
                    "args" => args = source.args(&key),
                    _ => source.unknown_key(&key, &BUILD_KEYS),
                }
            }
        }
        Some(entry) => path = source.word_or(Some(entry), ".", at),
        None => {}
    }
    let mut build = source.plain_build(path, dockerfile, at);
    build.image.args = args;
    source.settle(&mut build);
    build
}
