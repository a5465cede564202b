//! The settings that `defaults` and apps share: builds and hooks.

use super::apps::{Draft, existing};
use super::file;
use super::resolve::{At, Loading};
use super::{App, BuildConfig, HookConfig, HookKind, Timeouts};
use crate::build::{SecretSource, SshSource};
use crate::discovery::{COMPOSE_NAMES, CONVOX_NAME};
use std::collections::BTreeMap;
use std::path::Path;

/// Checks what can be wrong with a `build` and a `repository`; `at` is the mapping that holds them.
pub(super) fn check_settings(loading: &mut Loading<'_>, build: &file::Build, repository: Option<&str>, at: &At<'_>) {
    if let Some(repository) = repository {
        loading.repository_template(repository, &at.key("repository"));
    }
    for (id, secret) in &build.secrets {
        if secret.file.is_some() == secret.env.is_some() {
            let message = format!("the secret `{id}` needs one of `file` and `env`");
            let help = format!("write `{id}: {{env: NAME}}` or `{id}: {{file: PATH}}`");
            loading.problem(&at.key("build").key("secrets").named(id), message, help);
        }
    }
    if let Some(platform) = &build.platform {
        let parts: Vec<&str> = platform.split('/').collect();
        if !(2..=3).contains(&parts.len()) || parts.iter().any(|part| part.is_empty()) {
            let help = "write an operating system and an architecture, like `linux/amd64` or `linux/arm/v7`";
            loading.problem(&at.key("build").key("platform"), format!("`{platform}` is no platform"), help);
        }
    }
}

/// The builds' settings: the app's over the defaults, arguments, secrets and agents one by one. `dir` is the app's, on disk.
pub(super) fn build_config(below: &file::Build, own: &file::Build, dir: &Path, timeouts: Timeouts) -> BuildConfig {
    let secrets = over(&below.secrets, &own.secrets).filter_map(|(id, secret)| {
        let source = match (&secret.file, &secret.env) {
            (Some(file), _) => SecretSource::File(dir.join(file)),
            (None, Some(env)) => SecretSource::Env(env.clone()),
            (None, None) => return None,
        };
        Some((id.clone(), source))
    });
    let ssh = over(&below.ssh, &own.ssh).map(|(id, from)| {
        let source = if from == "agent" { SshSource::Agent } else { SshSource::Socket(dir.join(from)) };
        (id.clone(), source)
    });
    BuildConfig {
        weight: own.weight.or(below.weight).unwrap_or(1),
        args: over(&below.args, &own.args).map(|(name, value)| (name.clone(), value.0.clone())).collect(),
        secrets: secrets.collect(),
        ssh: ssh.collect(),
        platform: own.platform.clone().or_else(|| below.platform.clone()),
        no_cache: own.no_cache.or(below.no_cache).unwrap_or(false),
        pull: own.pull.or(below.pull).unwrap_or(false),
        timeouts,
    }
}

/// The entries of both, the upper ones winning.
pub(super) fn over<'m, V>(below: &'m BTreeMap<String, V>, above: &'m BTreeMap<String, V>) -> impl Iterator<Item = (&'m String, &'m V)> {
    below.iter().filter(|(key, _)| !above.contains_key(*key)).chain(above)
}

/// Where a hook lies that nobody names.
fn usual_hook(kind: HookKind) -> String {
    format!("deploy/{}.sh", kind.name())
}

/// What an app does not have, and would have by its name alone: as long as such a file was there, the app was another one.
impl App {
    /// The files that would be its manifest, or be read beside it, in place of what it has.
    #[must_use]
    pub fn manifests_before(&self) -> Vec<&'static str> {
        let before = |names: &[&'static str], now: Option<&str>| {
            let at = now.map_or(names.len(), |now| names.iter().position(|name| *name == now).unwrap_or(0));
            names[..at].to_vec()
        };
        let mut names = before(&[&[CONVOX_NAME], &COMPOSE_NAMES[..]].concat(), Some(&self.manifest));
        // Where a repository is configured, nobody looks beside a `convox.yml`.
        if self.generation == 2 && self.repository.is_none() {
            names.extend(before(&COMPOSE_NAMES, self.compose.as_deref()));
        }
        if self.generation == 1 || self.compose.is_some() {
            names.push(".env");
        }
        names
    }

    /// The hooks it does not have.
    pub fn usual_hooks_without(&self) -> impl Iterator<Item = String> {
        HookKind::ALL.into_iter().filter(|kind| !self.hooks.contains_key(kind)).map(usual_hook)
    }
}

/// The hooks: named ones have to exist, the usual files count where they do.
pub(super) fn hooks(
    loading: &mut Loading<'_>,
    draft: &Draft<'_>,
    defaults: &file::Hooks,
    own: &file::Hooks,
    at: &At<'_>,
) -> BTreeMap<HookKind, HookConfig> {
    let mut hooks = BTreeMap::new();
    for kind in HookKind::ALL {
        let place = match own.get(kind) {
            Some(_) => at.key("hooks").key(kind.name()),
            None => loading.at(&["defaults", "hooks", kind.name()]),
        };
        match own.get(kind).or(defaults.get(kind)) {
            Some(file::Hook::Command(command)) if command.first().is_none_or(String::is_empty) => {
                let help = "write a program and its arguments, like `[bin/rake, assets:precompile]`";
                loading.problem(&place, format!("the hook `{}` of app `{}` has no program", kind.name(), draft.name), help);
            }
            Some(file::Hook::Command(command)) => {
                hooks.insert(kind, HookConfig::Command(command.clone()));
            }
            Some(file::Hook::File(path)) => {
                let there = existing(loading, draft, path, &place);
                if there {
                    hooks.insert(kind, HookConfig::File { path: path.clone(), named: true });
                }
            }
            None if draft.found.deploy => {
                let path = usual_hook(kind);
                if draft.dir.join(&path).is_some_and(|path| loading.files.exists(&path)) {
                    hooks.insert(kind, HookConfig::File { path, named: false });
                }
            }
            None => {}
        }
    }
    hooks
}

impl file::ReleaseHook {
    /// The hook it is.
    #[must_use]
    pub fn kind(self) -> HookKind {
        match self {
            Self::BeforeRelease => HookKind::BeforeRelease,
            Self::AfterRelease => HookKind::AfterRelease,
        }
    }
}

impl file::Hooks {
    /// What is written for a hook.
    #[must_use]
    pub fn get(&self, kind: HookKind) -> Option<&file::Hook> {
        match kind {
            HookKind::BeforeBuild => self.before_build.as_ref(),
            HookKind::AfterBuild => self.after_build.as_ref(),
            HookKind::BeforeRelease => self.before_release.as_ref(),
            HookKind::AfterRelease => self.after_release.as_ref(),
            HookKind::OnFailure => self.on_failure.as_ref(),
        }
    }
}
