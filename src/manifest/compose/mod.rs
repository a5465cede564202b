//! Compose files: the services of generation 1, and what a generation 2 app borrows from one beside it.
//!
//! Files with `services:` (formats 2 and 3 and today's) and files whose top level is the services (format 1). Only what decides
//! an image is read; the rest is the rack's.

mod build;
mod values;

use super::convox::{entries, name};
use super::source::Source;
use super::{Service, ServiceBuild};
use crate::names::ImageRef;
use crate::yaml::{Entry, Node};
use std::sync::Arc;

/// The services of the file, in its order.
pub(super) fn services(source: &mut Source<'_>) -> Vec<Service> {
    let mut services = Vec::new();
    for entry in listed(source) {
        let Some(name) = name(source, &entry) else { continue };
        let Some((image, build)) = read(source, &entry, false) else { continue };
        if image.is_none() && build.is_none() && entry.value.get("image").is_none() && entry.value.get("build").is_none() {
            let help = Some("write `build: DIRECTORY` or `image: REPOSITORY:TAG`".to_owned());
            source.problem(entry.key_span.start, format!("service `{name}` has neither `build` nor `image`"), help);
        }
        services.push(Service { name, place: source.document.place(entry.key_span.start), image, build });
    }
    services
}

/// Gives the services of a `convox.yml` the builds and images of those with the same name here: the image's repository and tag
/// come from here when they are written here, and so does the build.
pub(super) fn lend(source: &mut Source<'_>, services: &mut [Service]) {
    for entry in listed(source) {
        let Some(service) = services.iter_mut().find(|service| service.name.as_str() == entry.key) else {
            if entry.value.entry("build").is_some() {
                let message = format!("service `{}` has a build, but the app's manifest has no such service: it is not built", entry.key);
                source.warn(entry.key_span.start, message, None);
            }
            continue;
        };
        let Some((image, build)) = read(source, &entry, service.build.is_some()) else { continue };
        let built = service.build.is_some() || build.is_some();
        // The image of a service that nobody builds is what `convox.yml` says: the compose file is not sent.
        if built && image.is_some() {
            service.image = image;
        }
        if build.is_some() {
            service.build = build;
        }
    }
}

/// The entries that are services.
fn listed(source: &mut Source<'_>) -> Vec<Entry> {
    let root = Arc::clone(&source.document.root);
    if root.entries().is_none() {
        let help = Some("it starts with `services:`".to_owned());
        source.problem(root.span.start, format!("a compose file is a mapping, not {}", root.kind()), help);
        return Vec::new();
    }
    if let Some(include) = root.entry("include") {
        let help = Some("write the services in this file".to_owned());
        source.problem(include.key_span.start, "`include` is not supported", help);
    }
    if !is_first_format(&root) {
        return entries(source, &root);
    }
    let services: Vec<Entry> = root.merged().into_iter().filter(|entry| !entry.key.starts_with("x-")).collect();
    if services.is_empty() {
        source.problem(root.span.start, "there are no services, so nothing to deploy", None);
    }
    services
}

/// True when the top level is the services: format 1 has neither `version` nor `services`.
pub(super) fn is_first_format(root: &Node) -> bool {
    root.entry("services").is_none() && root.entry("version").is_none()
}

/// Image and build of one service; `None` when it is no service. `built` when it is built whatever stands here.
fn read(source: &mut Source<'_>, entry: &Entry, built: bool) -> Option<(Option<ImageRef>, Option<ServiceBuild>)> {
    let at = entry.key_span.start;
    if entry.value.entries().is_none() {
        source.problem(at, format!("service `{}` must be a mapping, not {}", entry.key, entry.value.kind()), None);
        return None;
    }
    if let Some(extends) = entry.value.entry("extends") {
        let help = Some("write the keys out, or share them with an anchor: `<<: *common`".to_owned());
        source.problem(extends.key_span.start, format!("`extends` is not supported in service `{}`", entry.key), help);
    }
    let build = entry.value.entry("build").filter(|build| !build.value.is_null());
    let image = entry.value.entry("image").filter(|image| !image.value.is_null());
    let image = image.and_then(|image| source.image(&image, built || build.is_some()));
    let build = build.map(|build| build::read(source, &build, &entry.value));
    Some((image, build))
}
