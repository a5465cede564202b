//! A build as BuildKit's Dockerfile frontend is asked for it.
//!
//! Every field of [`ImageBuild`] becomes an attribute here or is refused by its key. Old frontends ignore attributes they do not
//! know, so what they do not know is refused by the engine's version.

use super::preflight::Checked;
use crate::build::{BuildError, ImageBuild, NamedContext};
use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, SolveRequest};
use std::collections::{BTreeMap, HashMap};

/// What the engine can do, as far as a request depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Abilities {
    /// The engine's version, for messages.
    pub(super) version: String,
    /// Engine 23.0 or newer: its frontend knows `shm-size`, `ulimit` and named contexts (moby/buildkit 0.10).
    pub(super) is_new: bool,
    /// The address that stands for `host-gateway`, when the engine tells.
    pub(super) host_gateway: Option<String>,
}

impl Abilities {
    /// What an engine of this version can do.
    pub(super) fn of(version: &str, host_gateway: Option<String>) -> Self {
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        // A version that is no number is a development build.
        Self { version: version.to_owned(), is_new: major.is_none_or(|major| major >= 23), host_gateway }
    }
}

/// True when the request depends on [`Abilities`].
pub(super) fn is_demanding(build: &ImageBuild) -> bool {
    build.shm_size.is_some()
        || !build.ulimits.is_empty()
        || !build.contexts.is_empty()
        || build.extra_hosts.values().any(|address| address == HOST_GATEWAY)
}

const HOST_GATEWAY: &str = "host-gateway";

/// Makes the request; `able` may be `None` when the build is not [demanding](is_demanding).
pub(super) fn request(
    build: &ImageBuild,
    labels: &BTreeMap<String, String>,
    checked: &Checked,
    able: Option<&Abilities>,
    session: &str,
    reference: &str,
) -> Result<SolveRequest, BuildError> {
    let old = able.filter(|able| !able.is_new);
    let mut attrs = HashMap::from([("filename".to_owned(), checked.filename.clone())]);
    let mut set = |key: &str, value: &str| attrs.insert(key.to_owned(), value.to_owned());
    for (name, value) in &build.args {
        set(&format!("build-arg:{name}"), value);
    }
    for (name, value) in labels {
        set(&format!("label:{name}"), value);
    }
    if let Some(target) = &build.target {
        set("target", target);
    }
    if let Some(platform) = &build.platform {
        if platform.contains(',') {
            return Err(refused("platforms", "the engine's builder makes one platform at a time", "name one platform"));
        }
        set("platform", platform);
    }
    if build.no_cache {
        set("no-cache", "");
    }
    // `default` takes a base image from the engine when it is there.
    set("image-resolve-mode", if build.pull { "pull" } else { "default" });
    let mut entitlements = Vec::new();
    match build.network.as_deref() {
        None | Some("default") => {}
        Some("none") => {
            set("force-network-mode", "none");
        }
        Some("host") => {
            set("force-network-mode", "host");
            entitlements.push("network.host".to_owned());
        }
        Some(other) => {
            let why = format!("BuildKit cannot build in the network `{other}`");
            return Err(refused("network", &why, "use `host`, `none` or `default`"));
        }
    }
    if !build.extra_hosts.is_empty() {
        set("add-hosts", &hosts(&build.extra_hosts, able)?);
    }
    let newer = "use Docker Engine 23.0 or newer, or drop the key";
    let cannot = |able: &Abilities| format!("the builder of Docker Engine {} does not know it", able.version);
    if let Some(size) = build.shm_size {
        if let Some(able) = old {
            return Err(refused("shm_size", &cannot(able), newer));
        }
        set("shm-size", &size.to_string());
    }
    if !build.ulimits.is_empty() {
        if let Some(able) = old {
            return Err(refused("ulimits", &cannot(able), newer));
        }
        let limits: Vec<String> = build.ulimits.iter().map(|(name, limit)| format!("{name}={limit}")).collect();
        set("ulimit", &limits.join(","));
    }
    if !build.contexts.is_empty() {
        // A frontend of the Dockerfile's own may know what the engine's does not.
        if let Some(able) = old.filter(|_| checked.dockerfile.syntax.is_none()) {
            let hint = "use Docker Engine 23.0 or newer, or begin the Dockerfile with `# syntax=docker/dockerfile:1`";
            return Err(refused("additional_contexts", &cannot(able), hint));
        }
        set("frontend.caps", "moby.buildkit.frontend.contexts+forward");
        for (name, context) in &build.contexts {
            match context {
                NamedContext::Directory(_) => set(&format!("context:{name}"), &format!("local:{name}")),
                NamedContext::Image(image) => set(&format!("context:{name}"), &format!("docker-image://{image}")),
            };
        }
    }
    if !build.cache_from.is_empty() {
        let references: Vec<String> = build.cache_from.iter().map(ToString::to_string).collect();
        set("cache-from", &references.join(","));
    }
    let inline = CacheOptionsEntry { r#type: "inline".to_owned(), attrs: HashMap::new() };
    Ok(SolveRequest {
        r#ref: reference.to_owned(),
        exporter_deprecated: "moby".to_owned(),
        session: session.to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: attrs,
        cache: Some(CacheOptions { exports: if build.inline_cache { vec![inline] } else { Vec::new() }, ..CacheOptions::default() }),
        entitlements,
        ..SolveRequest::default()
    })
}

fn hosts(hosts: &BTreeMap<String, String>, able: Option<&Abilities>) -> Result<String, BuildError> {
    let mut lines = Vec::new();
    for (name, address) in hosts {
        let address = match able.and_then(|able| able.host_gateway.as_deref()) {
            Some(gateway) if address == HOST_GATEWAY => gateway,
            None if address == HOST_GATEWAY => {
                return Err(refused("extra_hosts", "the engine does not tell the address of `host-gateway`", "write the address"));
            }
            // IPv6 addresses are often written in brackets, which BuildKit does not take.
            _ => address.trim_start_matches('[').trim_end_matches(']'),
        };
        lines.push(format!("{name}={address}"));
    }
    Ok(lines.join(","))
}

fn refused(key: &str, why: &str, hint: &str) -> BuildError {
    BuildError::Engine { message: format!("`build: {key}:` cannot be honoured: {why}"), hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::docker::dockerfile::Dockerfile;
    use crate::build::docker::sync::Directories;
    use crate::names::ImageRef;

    fn plain() -> ImageBuild {
        ImageBuild { context: "/c".into(), dockerfile: "/c/Dockerfile".into(), ..ImageBuild::default() }
    }

    fn asked(build: &ImageBuild, version: &str) -> Result<Vec<String>, String> {
        let checked = Checked {
            directories: Directories::new(BTreeMap::new()),
            filename: "Dockerfile".to_owned(),
            shown: "Dockerfile".to_owned(),
            dockerfile: Dockerfile::parse("FROM a"),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
        };
        let able = Abilities::of(version, Some("172.17.0.1".to_owned()));
        let labels = BTreeMap::from([("l".to_owned(), "v".to_owned())]);
        let request = request(build, &labels, &checked, Some(&able), "s", "r").map_err(|error| error.to_string())?;
        let mut attrs: Vec<String> = request.frontend_attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        attrs.extend(request.entitlements);
        attrs.extend(request.cache.unwrap_or_default().exports.into_iter().map(|entry| entry.r#type));
        attrs.sort();
        Ok(attrs)
    }

    fn map(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn every_field_is_an_attribute() {
        assert_eq!(asked(&plain(), "20.10.24").unwrap(), ["filename=Dockerfile", "image-resolve-mode=default", "label:l=v"]);
        let everything = ImageBuild {
            target: Some("t".to_owned()),
            args: map("A", "1"),
            platform: Some("linux/arm64".to_owned()),
            contexts: BTreeMap::from([
                ("dir".to_owned(), NamedContext::Directory("/d".into())),
                ("base".to_owned(), NamedContext::Image("alpine".to_owned())),
            ]),
            cache_from: vec![ImageRef::parse("r.example/a:1").unwrap(), ImageRef::parse("r.example/b:2").unwrap()],
            inline_cache: true,
            no_cache: true,
            pull: true,
            network: Some("host".to_owned()),
            extra_hosts: BTreeMap::from([("h".to_owned(), "[::1]".to_owned()), ("gw".to_owned(), "host-gateway".to_owned())]),
            shm_size: Some(1024),
            ulimits: map("nofile", "1:2"),
            ..plain()
        };
        insta::assert_snapshot!(asked(&everything, "28.2.2").unwrap().join("\n"), @r"
        add-hosts=gw=172.17.0.1,h=::1
        build-arg:A=1
        cache-from=r.example/a:1,r.example/b:2
        context:base=docker-image://alpine
        context:dir=local:dir
        filename=Dockerfile
        force-network-mode=host
        frontend.caps=moby.buildkit.frontend.contexts+forward
        image-resolve-mode=pull
        inline
        label:l=v
        network.host
        no-cache=
        platform=linux/arm64
        shm-size=1024
        target=t
        ulimit=nofile=1:2
        ");
    }

    #[test]
    fn what_the_engine_would_ignore_is_refused_by_its_key() {
        let cases = [
            ("shm_size", ImageBuild { shm_size: Some(1), ..plain() }),
            ("ulimits", ImageBuild { ulimits: map("nofile", "1:1"), ..plain() }),
            ("additional_contexts", ImageBuild { contexts: [("x".to_owned(), NamedContext::Image("a".to_owned()))].into(), ..plain() }),
            ("network", ImageBuild { network: Some("mine".to_owned()), ..plain() }),
            ("platforms", ImageBuild { platform: Some("linux/amd64,linux/arm64".to_owned()), ..plain() }),
        ];
        for (key, build) in cases {
            let error = asked(&build, "20.10.24").unwrap_err();
            assert!(error.starts_with(&format!("`build: {key}:` cannot be honoured")), "{error}");
        }
    }
}
