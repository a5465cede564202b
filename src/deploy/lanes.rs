//! What is done for one target, in its rack's lane: stage → `before_release` → promote → wait → `after_release`.
//!
//! Right before the promote the rack is read once more: the active release must still be the planned one.

use super::schedule::{AppImages, Failure};
use super::{Context, Stop, failure, hook_env, images};
use crate::config::HookKind;
use crate::event::{EventKind, FailureClass, Stage, Step, TargetOutcome};
use crate::names::{ImageRef, ReleaseId, Repository, ServiceName, Target};
use crate::plan::{AppPlan, TargetPlan, Until};
use crate::rack::{Deliver, ImageMover, Promoted, Rack, RackError, StageRequest, Staged, StagedImage};
use crate::registry::Login;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Releases a target and tells how it ended.
pub(crate) async fn release(target: &Target, images: &AppImages, context: &Context) -> TargetOutcome {
    let plan = Arc::clone(&context.plan);
    let planned = plan.targets().find(|planned| planned.target == *target);
    let (Some(planned), Some(app), Some(rack)) = (planned, plan.apps.get(&target.app), context.ports.racks.get(&target.rack)) else {
        // The composition root makes plan and ports from one list of racks.
        return TargetOutcome::NotAttempted { why: format!("`{target}` is not in the plan") };
    };
    let mut known = Known::default();
    match steps(planned, app, rack, images, context, &mut known).await {
        Ok(outcome) => outcome,
        Err((_, Stop::Cancelled)) => TargetOutcome::Cancelled,
        Err((stage, stop)) => {
            let rolled_back = match &stop {
                Stop::RolledBack(message) => Some(message.clone()),
                _ => None,
            };
            let Some(failed) = failure(stage, stop) else { return TargetOutcome::Cancelled };
            tell_failure(app, Some((planned, known.release.as_ref(), rack)), &failed, context).await;
            let Failure { stage, class, message, hint } = failed;
            match rolled_back {
                Some(message) => TargetOutcome::RolledBack { message },
                None => TargetOutcome::Failed { stage, class, message, hint },
            }
        }
    }
}

/// What is known of a target's release when a later step fails.
#[derive(Default)]
struct Known {
    release: Option<ReleaseId>,
}

async fn steps(
    target: &TargetPlan,
    app: &AppPlan,
    rack: &Arc<dyn Rack>,
    images: &AppImages,
    context: &Context,
    known: &mut Known,
) -> Result<TargetOutcome, (Stage, Stop)> {
    let at = |stage: Stage| Step { app: app.name.clone(), rack: Some(target.target.rack.clone()), service: None, stage };
    let on = |stage: Stage| move |stop: Stop| (stage, stop);

    let manifest = rewritten(target, images).map_err(on(Stage::Stage))?;
    if runs_already(target, app, &manifest) {
        return Ok(TargetOutcome::UpToDate);
    }
    let request = request(target, app, manifest, images, context).await.map_err(on(Stage::Stage))?;
    let step = at(Stage::Stage);
    let progress = context.events.progress(step.clone());
    let mover = Mover { context, step: Step { service: None, stage: Stage::Push, ..step.clone() } };
    let work = async {
        let staged = rack.stage(&request, &mover, &progress, &context.cancel).await;
        staged.map_err(|error| rack_stop(error, FailureClass::Rack))
    };
    let Staged { build, release, .. } = context.step(&step, request.app.clone(), work).await.map_err(on(Stage::Stage))?;
    known.release = Some(release.clone());
    context.events.record(EventKind::ReleaseStaged { target: target.target.clone(), build, release: release.clone() }).await;

    let hook = |kind: HookKind| hook_env::release_hook(&context.plan, app, target, kind, Some(&release), Some(rack.hook_login()));
    if let Some(command) = hook(HookKind::BeforeRelease) {
        let ran = images::run_hook(&command, &at(Stage::BeforeRelease), context, &context.cancel).await;
        ran.map_err(on(Stage::BeforeRelease))?;
    }
    if context.plan.options.until < Until::Promote {
        return Ok(TargetOutcome::Staged { release });
    }
    if context.cancel.is_cancelled() {
        return Err((Stage::Promote, Stop::Cancelled));
    }
    let step = at(Stage::Promote);
    let progress = context.events.progress(step.clone());
    let work = async {
        still_as_planned(target, rack).await?;
        let promoted = rack.promote(&target.config.name, &release, target.config.timeouts.promote, &progress, &context.cancel).await;
        match promoted.map_err(|error| rack_stop(error, FailureClass::Promote))? {
            Promoted::Live => Ok(()),
            Promoted::RolledBack { active, evidence } => {
                let active = active.map_or_else(|| "nothing".to_owned(), |active| active.to_string());
                let mut message = format!("rack `{}` rolled `{}` back: {active} is active, not {release}", rack.name(), target.config.name);
                for line in evidence {
                    message.push_str("\n  ");
                    message.push_str(&line);
                }
                Err(Stop::RolledBack(message))
            }
            Promoted::Overtaken { active } => {
                let message = format!("{active} was promoted on `{}` meanwhile; {release} is not live", target.target);
                Err(Stop::failed(FailureClass::Overtaken, message).hint("deploy again if this commit should be live"))
            }
        }
    };
    context.step(&step, release.to_string(), work).await.map_err(on(Stage::Promote))?;
    if let Some(command) = hook(HookKind::AfterRelease) {
        let ran = images::run_hook(&command, &at(Stage::AfterRelease), context, &context.cancel).await;
        ran.map_err(on(Stage::AfterRelease))?;
    }
    Ok(TargetOutcome::Deployed { release })
}

/// The manifest with every built service pinned to its digest.
fn rewritten(target: &TargetPlan, images: &AppImages) -> Result<String, Stop> {
    let pinned: BTreeMap<ServiceName, String> = images
        .iter()
        .map(|(service, (repository, digest))| {
            let image = ImageRef { repository: repository.clone(), tag: None, digest: Some(digest.clone()) };
            (service.clone(), image.to_string())
        })
        .collect();
    target.manifest.rewrite(&pinned).map_err(|problems| {
        let text = &target.manifest.document.text;
        let lines: Vec<String> = problems.iter().map(|problem| crate::yaml::excerpt(problem, text)).collect();
        Stop::failed(FailureClass::Rack, format!("the manifest of `{}` cannot be rewritten:\n{}", target.target, lines.join("\n")))
    })
}

/// True when the rack runs exactly this: same manifest with the same digests, same commit or same inputs.
fn runs_already(target: &TargetPlan, app: &AppPlan, manifest: &str) -> bool {
    target.live.as_ref().is_some_and(|live| {
        let same_inputs = live.fingerprint.as_ref() == Some(&app.fingerprint);
        live.running && same_inputs && live.manifest == manifest
    })
}

async fn request(
    target: &TargetPlan,
    app: &AppPlan,
    manifest: String,
    images: &AppImages,
    context: &Context,
) -> Result<StageRequest, Stop> {
    // The import's token is for one registry: the one of the app's own images.
    let host = images.values().map(|(repository, _)| repository.host.as_str()).next();
    let login = match (target.config.deliver, host) {
        (Deliver::Auto | Deliver::Import, Some(host)) => {
            context.ports.registry.login(host, false).await.map_err(|error| images::registry_stop(&error))?
        }
        _ => None,
    };
    let name = target.manifest.path.file_name();
    Ok(StageRequest {
        app: target.config.name.clone(),
        manifest_name: name,
        manifest,
        images: images
            .iter()
            .map(|(service, (repository, digest))| StagedImage {
                service: service.clone(),
                repository: repository.clone(),
                digest: digest.clone(),
            })
            .collect(),
        commit: context.plan.head.commit.id.clone(),
        description: target.description.clone(),
        token: context.plan.run.to_string(),
        revision: target.config.revision.then(|| app.revision.clone()),
        deliver: target.config.deliver,
        login,
        timeout: target.config.timeouts.rack_build,
    })
}

/// The guard right before the promote: nobody released this app since the plan was made.
async fn still_as_planned(target: &TargetPlan, rack: &Arc<dyn Rack>) -> Result<(), Stop> {
    let live = rack.live(&target.config.name).await.map_err(|error| rack_stop(error, FailureClass::Rack))?;
    let now = live.release.map(|release| release.id);
    let planned = target.live.as_ref().map(|live| live.release.clone());
    if now == planned {
        return Ok(());
    }
    let word = |release: Option<ReleaseId>| release.map_or_else(|| "nothing".to_owned(), |release| release.to_string());
    let message = format!("the plan for `{}` was made over {}, and {} is active now", target.target, word(planned), word(now));
    Err(Stop::failed(FailureClass::Guard, message).hint("somebody else released it meanwhile; deploy again to plan anew"))
}

/// Runs `on_failure`, which can never hide the first error: what it does wrong is told as its step's failure only.
pub(crate) async fn tell_failure(
    app: &AppPlan,
    target: Option<(&TargetPlan, Option<&ReleaseId>, &Arc<dyn Rack>)>,
    failed: &Failure,
    context: &Context,
) {
    let rack = target.map(|(target, ..)| target.target.rack.clone());
    let told = target.map(|(target, release, rack)| (target, release, Some(rack.hook_login())));
    let Some(command) = hook_env::failure_hook(&context.plan, app, told, failed) else { return };
    let step = Step { app: app.name.clone(), rack, service: None, stage: Stage::OnFailure };
    // The step's own failure is recorded by then, and there is nothing it could stop.
    let _ = images::run_hook(&command, &step, context, &context.cancel).await;
}

fn rack_stop(error: RackError, other: FailureClass) -> Stop {
    let class = match &error {
        RackError::Cancelled => return Stop::Cancelled,
        RackError::Login { .. } => FailureClass::RackLogin,
        RackError::Unreachable { .. } => FailureClass::RackUnreachable,
        RackError::Build { .. } => FailureClass::RackBuild,
        RackError::Timeout { .. } if other == FailureClass::Promote => FailureClass::PromoteTimeout,
        RackError::Timeout { .. } => FailureClass::RackBuildTimeout,
        RackError::Push { .. } => FailureClass::Push,
        RackError::NoApp { .. }
        | RackError::Updating { .. }
        | RackError::Refused { .. }
        | RackError::Unsupported { .. }
        | RackError::Unknown { .. } => other,
    };
    let stop = Stop::failed(class, error.to_string());
    match error.hint() {
        Some(hint) => stop.hint(hint),
        None => stop,
    }
}

/// Moves images through the engine into a rack's own registry.
struct Mover<'c> {
    context: &'c Context,
    step: Step,
}

#[async_trait::async_trait]
impl ImageMover for Mover<'_> {
    async fn push_to(&self, image: &StagedImage, to: &Repository, tag: &str, login: &Login) -> Result<(), String> {
        let ports = &self.context.ports;
        let reference = format!("{}@{}", image.repository, image.digest);
        let text = |error: crate::build::BuildError| error.to_string();
        if ports.builder.image_id(&reference).await.map_err(text)?.is_none() {
            // An image that was not built here comes from its repository first.
            let own = ports.registry.login(&image.repository.host, false).await.map_err(|error| error.to_string())?;
            ports.builder.pull(&image.repository, &image.digest, own.as_ref()).await.map_err(text)?;
        }
        ports.builder.tag(&reference, to, tag).await.map_err(text)?;
        let step = Step { service: Some(image.service.clone()), ..self.step.clone() };
        let progress = self.context.events.progress(step);
        let pushed = ports.builder.push(to, tag, Some(login), &progress, &self.context.cancel).await.map_err(text);
        // The name in the rack's registry is of no use on this machine.
        let untagged = ports.builder.untag(&format!("{to}:{tag}")).await.map_err(text);
        pushed.and(untagged)
    }
}
