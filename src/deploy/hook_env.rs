//! What a hook is told: exactly the documented variables, each where it has a meaning.
//!
//! Pure: a plan and what the run knows so far give a [`HookCommand`].

use super::schedule::Failure;
use crate::config::{HookConfig, HookKind, Timeouts};
use crate::hooks::HookCommand;
use crate::names::ReleaseId;
use crate::plan::{AppPlan, ImageAction, Plan, TargetPlan};
use crate::secret::Secret;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A hook around the build: once per app.
#[must_use]
pub fn build_hook(plan: &Plan, app: &AppPlan, kind: HookKind) -> Option<HookCommand> {
    let mut env = common(plan, app, kind);
    // With one rack its name is what the seed script's hooks expect.
    if let [rack] = app.racks.as_slice() {
        env.insert("RACK_NAME".to_owned(), rack.to_string());
        if let Some(target) = plan.targets().find(|target| target.target.app == app.name && target.target.rack == *rack) {
            env.insert("APP_ENV".to_owned(), target.config.env.clone());
        }
    }
    command(app, kind, env, BTreeMap::new(), app.timeouts)
}

/// A hook around the release: once per target.
#[must_use]
pub fn release_hook(
    plan: &Plan,
    app: &AppPlan,
    target: &TargetPlan,
    kind: HookKind,
    release: Option<&ReleaseId>,
    login: Option<(String, Secret)>,
) -> Option<HookCommand> {
    let (env, secret) = release_env(plan, app, target, kind, release, login);
    command(app, kind, env, secret, target.config.timeouts)
}

/// The target that failed: its plan, its release when there is one, and the rack's login.
pub type Failed<'a> = (&'a TargetPlan, Option<&'a ReleaseId>, Option<(String, Secret)>);

/// `on_failure`: for an app, or for one of its targets.
#[must_use]
pub fn failure_hook(plan: &Plan, app: &AppPlan, target: Option<Failed<'_>>, failure: &Failure) -> Option<HookCommand> {
    let mut hook = match target {
        Some((target, release, login)) => release_hook(plan, app, target, HookKind::OnFailure, release, login)?,
        None => build_hook(plan, app, HookKind::OnFailure)?,
    };
    hook.env.insert("OFFBUILD_FAILED_STAGE".to_owned(), failure.stage.name().to_owned());
    hook.env.insert("OFFBUILD_FAILURE".to_owned(), failure.class.name().to_owned());
    hook.env.insert("OFFBUILD_ERROR".to_owned(), failure.message.clone());
    Some(hook)
}

fn release_env(
    plan: &Plan,
    app: &AppPlan,
    target: &TargetPlan,
    kind: HookKind,
    release: Option<&ReleaseId>,
    login: Option<(String, Secret)>,
) -> (BTreeMap<String, String>, BTreeMap<String, Secret>) {
    let mut env = common(plan, app, kind);
    env.insert("APP_NAME".to_owned(), target.config.name.clone());
    env.insert("APP_ENV".to_owned(), target.config.env.clone());
    env.insert("RACK_NAME".to_owned(), target.target.rack.to_string());
    env.insert("OFFBUILD_RACK".to_owned(), target.target.rack.to_string());
    if let Some(release) = release {
        env.insert("RELEASE_ID".to_owned(), release.to_string());
    }
    let mut secret = BTreeMap::new();
    if let Some((host, password)) = login {
        env.insert("CONVOX_HOST".to_owned(), host);
        secret.insert("CONVOX_PASSWORD".to_owned(), password);
    }
    (env, secret)
}

fn common(plan: &Plan, app: &AppPlan, kind: HookKind) -> BTreeMap<String, String> {
    let racks: Vec<&str> = app.racks.iter().map(crate::names::RackName::as_str).collect();
    let mut env = BTreeMap::from([
        ("APP_NAME".to_owned(), app.name.to_string()),
        ("GIT_HASH".to_owned(), plan.head.commit.id.to_string()),
        ("GIT_DESCRIPTION".to_owned(), plan.head.describe.clone()),
        ("OFFBUILD_APP".to_owned(), app.name.to_string()),
        ("OFFBUILD_FINGERPRINT".to_owned(), app.fingerprint.to_string()),
        ("OFFBUILD_HOOK".to_owned(), kind.name().to_owned()),
        ("OFFBUILD_RACKS".to_owned(), racks.join(" ")),
        ("OFFBUILD_REVISION".to_owned(), app.revision.clone()),
        ("OFFBUILD_RUN".to_owned(), plan.run.to_string()),
    ]);
    if let Some(branch) = &plan.head.branch {
        env.insert("GIT_BRANCH".to_owned(), branch.clone());
    }
    let mut first = true;
    for image in &app.images {
        let service = image.service.as_str().to_uppercase().replace(['-', '.'], "_");
        env.insert(format!("DOCKER_TAG_{service}"), image.reference());
        if first && (matches!(image.action, ImageAction::Build { .. }) || !app.builds()) {
            env.insert("DOCKER_TAG".to_owned(), image.reference());
            first = false;
        }
    }
    env
}

fn command(
    app: &AppPlan,
    kind: HookKind,
    env: BTreeMap<String, String>,
    secret_env: BTreeMap<String, Secret>,
    timeouts: Timeouts,
) -> Option<HookCommand> {
    let (program, args) = match app.hooks.get(&kind)? {
        HookConfig::File { path, .. } => (app.dir.join(path), Vec::new()),
        HookConfig::Command(words) => {
            let (program, args) = words.split_first()?;
            // A path is the app's; a bare name is looked up in PATH.
            let program = if program.contains('/') { app.dir.join(program) } else { PathBuf::from(program) };
            (program, args.to_vec())
        }
    };
    Some(HookCommand { program, args, directory: app.dir.clone(), env, secret_env, timeout: timeouts.hook })
}
