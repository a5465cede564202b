//! The `build:` of a compose service: <https://docs.docker.com/reference/compose-file/build/>.
//!
//! Every key is honoured or refused by name. What is refused is what the engine's own BuildKit cannot do, or what would make
//! an image depend on something that change detection cannot see.

use super::super::ServiceBuild;
use super::super::source::Source;
use super::values;
use crate::build::{NamedContext, SecretSource, SshSource};
use crate::names::ImageRef;
use crate::yaml::{Entry, Node};
use std::sync::Arc;

/// The keys that are honoured.
const KEYS: [&str; 17] = [
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "extra_hosts",
    "labels",
    "network",
    "no_cache",
    "platforms",
    "pull",
    "secrets",
    "shm_size",
    "ssh",
    "target",
    "ulimits",
];

/// The keys that are refused, and what to do instead. `false` is no request for any of them.
const REFUSED: [(&str, &str); 8] = [
    ("dockerfile_inline", "put the text into a file and name it with `dockerfile`"),
    ("entitlements", "the engine's own builder grants none; leave it out"),
    ("isolation", "it means something on Windows only; leave it out"),
    ("privileged", "the engine's own builder has no privileged builds; leave it out"),
    ("provenance", "the engine's own builder makes no attestations; leave it out"),
    ("sbom", "the engine's own builder makes no attestations; leave it out"),
    ("tags", "the tags are offbuild's: write `image: REPOSITORY:TAG` beside `build`"),
    ("no_cache_filter", "use `no_cache: true`, or leave it out"),
];

/// Reads a build. `service` is the mapping it stands in.
pub(super) fn read(source: &mut Source<'_>, entry: &Entry, service: &Node) -> ServiceBuild {
    let at = entry.key_span.start;
    let keys = if entry.value.entries().is_some() { entry.value.merged() } else { Vec::new() };
    let find = |name: &str| keys.iter().find(|key| key.key == name);
    let short = entry.value.entries().is_none().then_some(entry);
    let mut context = source.word_or(find("context").or(short), ".", at);
    let mut dockerfile = source.word_or(find("dockerfile"), "Dockerfile", at);
    if let Some(beside) = service.entry("dockerfile") {
        // Format 1 writes it beside `build`.
        if super::is_first_format(&source.document.root) && find("dockerfile").is_none() {
            dockerfile = source.word_or(Some(&beside), "Dockerfile", at);
        } else {
            let help = Some("write `build: {context: …, dockerfile: …}`".to_owned());
            source.problem(beside.key_span.start, "`dockerfile` stands beside `build`, not in it", help);
        }
    }
    if values::is_remote(&context.0) {
        let help = Some("a remote context changes without a commit here; check it out into the repository".to_owned());
        source.problem(context.1, format!("the build context `{}` is remote", context.0), help);
        ".".clone_into(&mut context.0);
    }
    let mut build = source.plain_build(context, dockerfile, at);
    for key in &keys {
        honour(source, key, &mut build);
    }
    // A service's platform is its image's, unless the build says its own.
    if let (None, Some(platform)) = (find("platforms"), service.entry("platform")) {
        build.image.platform = source.word(&platform);
    }
    source.settle(&mut build);
    build
}

fn honour(source: &mut Source<'_>, key: &Entry, build: &mut ServiceBuild) {
    let at = key.key_span.start;
    match key.key.as_str() {
        "context" | "dockerfile" => {}
        "args" => build.image.args = source.args(key),
        "target" => build.image.target = source.word(key),
        "no_cache" => build.image.no_cache = source.boolean(key).unwrap_or_default(),
        "pull" => build.image.pull = source.boolean(key).unwrap_or_default(),
        "labels" => {
            let pairs = source.pairs(key, &['=']);
            build.labels = pairs.into_iter().map(|pair| (pair.name, pair.value.unwrap_or_default())).collect();
        }
        "platforms" => match source.list(key).as_slice() {
            [(platform, _)] => build.image.platform = Some(platform.clone()),
            several => {
                let message = format!("`platforms` must name one platform, not {}", several.len());
                source.problem(at, message, Some("the engine's builder makes one platform at a time".to_owned()));
            }
        },
        "network" => {
            let network = source.word(key);
            match network.as_deref() {
                Some("host" | "none") => build.image.network = network,
                Some("default") | None => {}
                Some(other) => {
                    let help = Some("BuildKit knows `default`, `host` and `none`".to_owned());
                    source.problem(at, format!("`network: {other}` is not possible"), help);
                }
            }
        }
        "shm_size" => {
            let size = source.word(key);
            build.image.shm_size = size.as_deref().and_then(values::bytes);
            if let (Some(size), None) = (size, build.image.shm_size) {
                source.problem(at, format!("`{size}` is not a size: bytes, or a number with `b`, `k`, `m` or `g`"), None);
            }
        }
        "ulimits" => ulimits(source, key, build),
        "extra_hosts" => extra_hosts(source, key, build),
        "cache_from" => cache_from(source, key, build),
        "cache_to" => cache_to(source, key, build),
        "additional_contexts" => contexts(source, key, build),
        "secrets" => secrets(source, key, build),
        "ssh" => ssh(source, key, build),
        extension if extension.starts_with("x-") => {}
        name => match REFUSED.iter().find(|(refused, _)| *refused == name) {
            Some(_) if key.value.as_str() == Some("false") => {}
            Some((_, instead)) => source.problem(at, format!("`build.{name}` is not supported"), Some((*instead).to_owned())),
            None => source.unknown_key(key, &KEYS),
        },
    }
}

fn ulimits(source: &mut Source<'_>, key: &Entry, build: &mut ServiceBuild) {
    if key.value.entries().is_none() {
        source.problem(key.key_span.start, format!("`ulimits` must be a mapping, not {}", key.value.kind()), None);
    }
    for limit in key.value.merged() {
        let at = limit.key_span.start;
        let both = if limit.value.entries().is_some() {
            let soft = limit.value.entry("soft").and_then(|entry| source.word(&entry));
            let hard = limit.value.entry("hard").and_then(|entry| source.word(&entry));
            soft.zip(hard)
        } else {
            source.word(&limit).map(|both| (both.clone(), both))
        };
        match both.filter(|(soft, hard)| soft.parse::<i64>().is_ok() && hard.parse::<i64>().is_ok()) {
            Some((soft, hard)) => {
                build.image.ulimits.insert(limit.key, format!("{soft}:{hard}"));
            }
            None => source.problem(at, format!("the limit `{}` must be a number or `soft` and `hard`", limit.key), None),
        }
    }
}

fn extra_hosts(source: &mut Source<'_>, key: &Entry, build: &mut ServiceBuild) {
    for pair in source.pairs(key, &['=', ':']) {
        let address = pair.value.map(|value| value.trim_matches(['[', ']']).to_owned()).filter(|value| !value.is_empty());
        let Some(address) = address else {
            source.problem(pair.at, format!("the host `{}` has no address", pair.name), Some("write `NAME=ADDRESS`".to_owned()));
            continue;
        };
        if build.image.extra_hosts.get(&pair.name).is_some_and(|other| *other != address) {
            source.problem(pair.at, format!("the host `{}` has two addresses", pair.name), Some("keep one of them".to_owned()));
        }
        build.image.extra_hosts.insert(pair.name, address);
    }
}

fn cache_from(source: &mut Source<'_>, key: &Entry, build: &mut ServiceBuild) {
    for (text, at) in source.list(key) {
        let fields = values::fields(&text);
        let reference = match (fields.get("type").copied(), fields.get("ref").copied()) {
            (None, _) if !text.contains('=') => text.as_str(),
            (Some("registry"), Some(reference)) => reference,
            _ => {
                let help = "references only: `REPOSITORY:TAG` or `type=registry,ref=REPOSITORY:TAG`";
                source.problem(at, format!("the cache `{text}` is not supported"), Some(help.to_owned()));
                continue;
            }
        };
        match ImageRef::parse(reference) {
            Ok(reference) => build.image.cache_from.push(reference),
            Err(error) => source.problem(at, error.to_string(), None),
        }
    }
}

fn cache_to(source: &mut Source<'_>, key: &Entry, build: &mut ServiceBuild) {
    for (text, at) in source.list(key) {
        if values::fields(&text).get("type").copied() == Some("inline") {
            build.image.inline_cache = true;
        } else {
            let help = "set `cache: {registry: true}` on the rack in apps.yaml, or write `type=inline`";
            source.problem(at, format!("`build.cache_to: {text}` is not supported"), Some(help.to_owned()));
        }
    }
}

fn contexts(source: &mut Source<'_>, key: &Entry, build: &mut ServiceBuild) {
    for pair in source.pairs(key, &['=']) {
        let Some(value) = pair.value.filter(|value| !value.is_empty()) else {
            source.problem(pair.at, format!("the context `{}` names nothing", pair.name), None);
            continue;
        };
        let context = if let Some(image) = value.strip_prefix("docker-image://") {
            NamedContext::Image(image.to_owned())
        } else if value.starts_with("service:") || values::is_remote(&value) {
            let help = Some("a directory of the repository or `docker-image://REFERENCE`".to_owned());
            source.problem(pair.at, format!("the context `{}` is `{value}`, which is not supported", pair.name), help);
            continue;
        } else {
            let dir = source.dir.clone();
            let Some(inside) = source.inside(&dir, &value, pair.at, "additional context") else { continue };
            let directory = inside.under(source.reading.root);
            build.also_reads.push(inside);
            NamedContext::Directory(directory)
        };
        build.image.contexts.insert(pair.name, context);
    }
}

fn secrets(source: &mut Source<'_>, key: &Entry, build: &mut ServiceBuild) {
    let Some(items) = key.value.items().map(<[_]>::to_vec) else {
        source.problem(key.key_span.start, format!("`secrets` must be a list, not {}", key.value.kind()), None);
        return;
    };
    for item in items {
        let at = item.span.start;
        let Some((name, id)) = secret_names(source, &item) else { continue };
        // Whatever the file says of it, the settings' own wins.
        if source.reading.build.secrets.contains_key(&id) {
            continue;
        }
        let defined = source.document.root.get("secrets").and_then(|secrets| secrets.entry(&name));
        let Some(defined) = defined else {
            let help = format!("add `secrets: {{{name}: {{file: …}}}}` at the top level, or `build.secrets.{id}` in apps.yaml");
            source.problem(at, format!("the secret `{name}` is not defined"), Some(help));
            continue;
        };
        let (file, environment) = (defined.value.entry("file"), defined.value.entry("environment"));
        if let Some(file) = file {
            let Some(path) = source.word(&file) else { continue };
            build.also_reads.extend(source.dir.join(&path));
            build.image.secrets.insert(id, SecretSource::File(source.anywhere(&path)));
        } else if let Some(variable) = environment {
            let Some(variable) = source.word(&variable) else { continue };
            build.image.secrets.insert(id, SecretSource::Env(variable));
        } else {
            let what = if defined.value.get("external").is_some() { "is external" } else { "has neither `file` nor `environment`" };
            let help = format!("give it a `file` or an `environment`, or set `build.secrets.{id}` in apps.yaml");
            source.problem(defined.key_span.start, format!("the secret `{name}` {what}"), Some(help));
        }
    }
}

/// A secret's name at the top level and the id the Dockerfile asks for; the long form's `target` is the id.
fn secret_names(source: &mut Source<'_>, item: &Arc<Node>) -> Option<(String, String)> {
    let at = item.span.start;
    if item.entries().is_none() {
        let name = source.text(item, at, "secrets")?;
        return Some((name.clone(), name));
    }
    for key in item.merged().iter().filter(|key| !matches!(key.key.as_str(), "source" | "target")) {
        let help = Some("write it in the Dockerfile: `RUN --mount=type=secret,id=…,mode=…`".to_owned());
        source.problem(key.key_span.start, format!("`{}` of a build secret is not supported", key.key), help);
    }
    let Some(name) = item.entry("source") else {
        source.problem(at, "a build secret needs a `source`", None);
        return None;
    };
    let name = source.word(&name)?;
    let id = match item.entry("target") {
        Some(target) => source.word(&target)?,
        None => name.clone(),
    };
    Some((name, id))
}

fn ssh(source: &mut Source<'_>, key: &Entry, build: &mut ServiceBuild) {
    let pairs = match key.value.as_str() {
        // `ssh: default` is as good as a list of one.
        Some(_) => source.list(key).into_iter().map(|(name, at)| super::super::source::Pair { name, value: None, at }).collect(),
        None => source.pairs(key, &['=']),
    };
    for pair in pairs {
        let agent = match pair.value.as_deref() {
            None | Some("") => SshSource::Agent,
            Some(several) if several.contains(',') => {
                let help = Some("load the keys into one agent and name its socket".to_owned());
                source.problem(pair.at, format!("`ssh` names several keys for `{}`", pair.name), help);
                continue;
            }
            Some(path) => SshSource::Socket(source.anywhere(path)),
        };
        build.image.ssh.insert(pair.name, agent);
    }
}
