//! Rewriting: `image:` instead of `build:`, and nothing else.
//!
//! 1. Find each service in the text; what another place writes for it (an alias) is refused, not edited.
//! 2. Collect splices: a `build:` becomes the `image:`, or goes when there is an `image:` to correct; without either one, or with
//!    a merged one only, an `image:` is inserted behind the merges.
//! 3. Parse the result and compare it with the original: besides those two keys of those services, both must mean the same.
//!
//! The alternative, writing the tree out again, would lose comments, order and style. A `build:` that only comes from a merge
//! stays where it is written: an `image:` wins over it on every rack.

use super::compose::is_first_format;
use super::{Manifest, Problems};
use crate::names::ServiceName;
use crate::yaml::{Document, Entry, Node, Place, Problem};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

mod text;

use text::{Spot, entry_extent, is_block_line, line_end, line_start, newline};

/// A replacement of some bytes.
type Splice = (Range<usize>, String);

impl Manifest {
    /// A copy of the manifest in which each named service runs the image given for it, a full reference.
    ///
    /// `build:` is gone from those services (where it was their own), everything else is byte for byte what the user wrote. An
    /// error names what cannot be edited in place and what to write instead.
    pub fn rewrite(&self, images: &BTreeMap<ServiceName, String>) -> Result<String, Problems> {
        let document = &self.document;
        let mut problems = Problems::new();
        let mut splices = Vec::new();
        let container = container(document, self.generation);
        for (name, image) in images {
            let found = container.as_ref().and_then(|node| node.entries()?.iter().find(|entry| entry.key == name.as_str()));
            match found.map(|entry| edit(document, entry, image)) {
                Some(Ok(edits)) => splices.extend(edits),
                Some(Err(problem)) => problems.push(problem),
                None => problems.push(Problem {
                    place: services_place(document),
                    message: format!("service `{name}` is not written in `services` itself, so its image cannot be set"),
                    help: Some(format!("write `{name}:` out there")),
                }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        splices.sort_by_key(|(range, _)| (range.start, range.end));
        let mut rewritten = document.text.clone();
        for (range, text) in splices.into_iter().rev() {
            rewritten.replace_range(range, &text);
        }
        match compare(document, &rewritten, self.generation, images) {
            problems if problems.is_empty() => Ok(rewritten),
            problems => Err(problems),
        }
    }
}

/// The mapping that holds the services, when it is written where it stands.
fn container(document: &Document, generation: u8) -> Option<Arc<Node>> {
    if generation == 1 && is_first_format(&document.root) {
        return Some(Arc::clone(&document.root));
    }
    let services = document.root.entries()?.iter().find(|entry| entry.key == "services")?;
    (!services.value.aliased).then(|| Arc::clone(&services.value))
}

/// Where the services start.
fn services_place(document: &Document) -> Place {
    let own = document.root.entries().and_then(|entries| entries.iter().find(|entry| entry.key == "services"));
    document.place(own.map_or(0, |entry| entry.key_span.start))
}

/// The splices of one service.
fn edit(document: &Document, service: &Entry, image: &str) -> Result<Vec<Splice>, Problem> {
    let text = document.text.as_str();
    let name = &service.key;
    let refuse = |at: usize, message: String| Problem {
        place: document.place(at),
        message,
        help: Some(format!("write service `{name}` as a plain mapping with an `image:` of its own")),
    };
    let at = service.key_span.start;
    if service.value.aliased {
        return Err(refuse(at, format!("service `{name}` is an alias, so its image cannot be set without changing the others")));
    }
    let odd = |at: usize| refuse(at, format!("service `{name}` is written in a way that cannot be edited in place"));
    let Some(entries) = service.value.entries() else {
        // `web:` with nothing behind it: the rack's defaults, and now an image.
        let spot = Spot::of(text, service).ok_or_else(|| odd(at))?;
        let written = spot.after_colon..spot.end;
        return Ok(vec![(written, format!(" {{image: {}}}", scalar(image, false)))]);
    };
    let own = |key: &str| entries.iter().find(|entry| entry.key == key);
    let spot = |entry: &Entry| Spot::of(text, entry).ok_or_else(|| odd(entry.key_span.start));
    let flow = text[service.value.span.start..].starts_with('{');
    if !flow && entries.iter().any(|entry| !is_block_line(text, entry.key_span.start)) {
        return Err(odd(at));
    }
    let (Some(old), build) = (own("image"), own("build")) else {
        return match own("build") {
            Some(build) => {
                let spot = spot(build)?;
                let entry = format!("{0}image{0}: {1}", spot.quote, scalar(image, spot.quote == "\""));
                Ok(if flow { vec![(spot.start..spot.end, entry)] } else { replace_lines(text, &spot, &entry) })
            }
            None => insert(text, service, entries, flow, image).map(|splice| vec![splice]).ok_or_else(|| odd(at)),
        };
    };
    let old = spot(old)?;
    let space =
        if old.value_start == old.after_colon && !text[old.after_colon..].starts_with(' ') && old.quote.is_empty() { " " } else { "" };
    let space = if old.value_start == old.end { " " } else { space };
    let mut splices = vec![(old.value_start..old.end, format!("{space}{}", scalar(image, old.quote == "\"")))];
    if let Some(build) = build {
        let build = spot(build)?;
        let range = if flow { flow_entry(text, &build).ok_or_else(|| odd(build.start))? } else { lines(text, &build) };
        splices.push((range, String::new()));
    }
    Ok(splices)
}

/// An image reference as YAML: plain where that reads back as the same string.
fn scalar(image: &str, quoted: bool) -> String {
    let safe = image.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/@:+-".contains(&b))
        && image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && image.bytes().any(|b| b.is_ascii_alphabetic())
        && !image.ends_with(':')
        && matches!(serde_yaml::from_str::<serde_yaml::Value>(image), Ok(serde_yaml::Value::String(text)) if text == image);
    if safe && !quoted { image.to_owned() } else { serde_json::Value::from(image).to_string() }
}

/// A block `build:` becomes `image:` in its first line; a comment in that line stays, the other lines go.
fn replace_lines(text: &str, spot: &Spot, entry: &str) -> Vec<Splice> {
    let extent = entry_extent(text, spot);
    let first = line_end(text, spot.start);
    if extent <= first {
        return vec![(spot.start..spot.end, entry.to_owned())];
    }
    let rest = &text[spot.after_colon..first];
    let key_end = if rest.trim_start().starts_with('#') || rest.trim().is_empty() { spot.after_colon } else { first };
    vec![(spot.start..key_end, entry.to_owned()), (first..extent, String::new())]
}

/// The lines of a block entry, with the line break that ends them (or, at the end of the file, the one before them).
fn lines(text: &str, spot: &Spot) -> Range<usize> {
    let start = line_start(text, spot.start);
    let end = entry_extent(text, spot);
    match newline(text, end) {
        "" => start - newline_before(text, start)..text.len(),
        newline => start..end + newline.len(),
    }
}

fn newline_before(text: &str, start: usize) -> usize {
    if text[..start].ends_with("\r\n") { 2 } else { usize::from(start > 0) }
}

/// A flow entry with one comma.
fn flow_entry(text: &str, spot: &Spot) -> Option<Range<usize>> {
    let after = &text[spot.end..];
    let blank = after.len() - after.trim_start().len();
    if after.trim_start().starts_with(',') {
        let behind = &after[blank + 1..];
        let next = behind.len() - behind.trim_start().len();
        // A comment behind the comma stays on its line.
        let next = if behind.trim_start().starts_with('#') { 0 } else { next };
        return Some(spot.start..spot.end + blank + 1 + next);
    }
    let before = text[..spot.start].trim_end();
    before.ends_with(',').then(|| before.len() - 1..spot.end)
}

/// An `image:` for a service that has none of its own: behind the merges, whose keys some readers would let win otherwise.
fn insert(text: &str, service: &Entry, entries: &[Entry], flow: bool, image: &str) -> Option<Splice> {
    let image = scalar(image, false);
    let merge = entries.iter().rfind(|entry| entry.key == "<<");
    if flow {
        return Some(match (merge, entries.is_empty()) {
            (Some(merge), _) => {
                let end = Spot::of(text, merge)?.end;
                (end..end, format!(", image: {image}"))
            }
            (None, empty) => {
                let inside = service.value.span.start + 1;
                (inside..inside, if empty { format!("image: {image}") } else { format!("image: {image}, ") })
            }
        });
    }
    let first = entries.first()?.key_span.start;
    let indent = &text[line_start(text, first)..first];
    // The line above the service's first key is always there, and its break is the file's style.
    let above = line_start(text, first);
    let newline = if text[..above].ends_with("\r\n") { "\r\n" } else { "\n" };
    Some(match merge {
        Some(merge) => {
            let end = entry_extent(text, &Spot::of(text, merge)?);
            (end..end, format!("{newline}{indent}image: {image}"))
        }
        None => (first..first, format!("image: {image}{newline}{indent}")),
    })
}

/// What the rewritten text means otherwise than it should.
fn compare(original: &Document, rewritten: &str, generation: u8, images: &BTreeMap<ServiceName, String>) -> Problems {
    let problem = |place, message: String| Problem {
        place,
        message,
        help: Some("write each service's `build` and `image` out, without anchors on or in them".to_owned()),
    };
    let edited = match Document::parse(&original.file, rewritten) {
        Ok(edited) => edited,
        Err(error) => {
            let message = if error.message.contains("anchor") {
                "taking `build` away would take away an anchor that is used elsewhere".to_owned()
            } else {
                format!("an image cannot be set in place: {}", error.message)
            };
            return vec![problem(services_place(original), message)];
        }
    };
    let inside = if generation == 1 && is_first_format(&original.root) { None } else { Some("services") };
    let mut problems = Problems::new();
    let value = |node: &Node| node.to_value(&mut |_, text| text.to_owned());
    let services = |document: &Document| match inside {
        Some(key) => document.root.get(key).map(|node| node.merged()).unwrap_or_default(),
        None => document.root.merged(),
    };
    let rest = |document: &Document| -> Vec<(String, serde_yaml::Value)> {
        let entries = document.root.merged().into_iter().filter(|entry| inside.is_some_and(|key| key != entry.key));
        entries.map(|entry| (entry.key, value(&entry.value))).collect()
    };
    if rest(original) != rest(&edited) {
        problems.push(problem(original.place(0), "setting an image would change what stands outside `services`".to_owned()));
    }
    let (before, after) = (services(original), services(&edited));
    if before.len() != after.len() {
        problems.push(problem(services_place(original), "setting an image would change the list of services".to_owned()));
    }
    for (before, after) in before.iter().zip(&after) {
        let place = || original.place(before.key_span.start);
        let image = images.iter().find(|(name, _)| name.as_str() == before.key).map(|(_, image)| image);
        let mut pair = [value(&before.value), value(&after.value)];
        if let Some(image) = image {
            if after.value.get("image").and_then(|node| node.as_str().map(str::to_owned)).as_ref() != Some(image) {
                problems.push(problem(place(), format!("the image of service `{}` cannot be set in place", before.key)));
            }
            if overruled(&after.value) {
                let mut found = problem(place(), format!("a merge behind the `image` of service `{}` has an `image` too", before.key));
                found.help = Some("move the `<<` to the service's first line: some racks let the later one win".to_owned());
                problems.push(found);
            }
            for value in &mut pair {
                // A service that was empty is a mapping now.
                if value.is_null() {
                    *value = serde_yaml::Value::Mapping(serde_yaml::Mapping::new());
                }
                if let Some(mapping) = value.as_mapping_mut() {
                    mapping.remove("image");
                    mapping.remove("build");
                }
            }
        }
        if before.key != after.key || pair[0] != pair[1] {
            let message = format!("service `{}` would change with the image of another one, through an anchor", before.key);
            problems.push(problem(place(), message));
        }
    }
    problems
}

/// True when a merge stands behind the service's own `image` and brings one too: go-yaml's second version, which the racks
/// use, applies keys and merges in the order they are written.
fn overruled(service: &Node) -> bool {
    let entries = service.entries().unwrap_or_default();
    let mut behind = entries.iter().skip_while(|entry| entry.key != "image");
    behind.any(|entry| {
        let sources = entry.value.items().map_or_else(|| vec![Arc::clone(&entry.value)], <[_]>::to_vec);
        entry.key == "<<" && sources.iter().any(|source| source.get("image").is_some())
    })
}

#[cfg(test)]
mod tests;
